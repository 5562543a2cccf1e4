//! What is said of a contest, to people and to programs.

use serde_json::{Value, json};

use super::{
    contest::{Contest, Spread},
    lines::Verdict,
};
use crate::machine::Machine;

pub(crate) fn print(contest: &Contest, verdicts: &[Verdict]) {
    println!(
        "{:46} {:58} {:>18} {:>9} {:>5} {:>9}",
        "ratio of speeds", "against", "median (spread)", "at least", "goal", "bare loop"
    );
    for verdict in verdicts {
        let Verdict { what, against, ratio, bare, at_least, goal, note, .. } = verdict;
        let ratio = ratio.map_or_else(|| "not measured".into(), |ratio| spread(&ratio));
        let goal = goal.map(|goal| goal.to_string()).unwrap_or_default();
        let bare = bare.map(|bare| format!("{:.2}", bare.median)).unwrap_or_default();
        let mark = if verdict.holds() { "" } else { "FALLS SHORT " };
        let note = note.as_deref().unwrap_or_default();
        println!("{what:46} {against:58} {ratio:>18} {at_least:>9} {goal:>5} {bare:>9}  {mark}{note}");
    }
    for (work, figures) in contest.figures() {
        println!("\n{:54} {:>22}", work.name(), "GB/s, median (spread)");
        for (entry, figure) in figures {
            println!("  {:52} {:>22}", entry.contender(), spread(&figure));
        }
    }
}

fn spread(Spread { median, least, most }: &Spread) -> String {
    format!("{median:.2} ({least:.2}-{most:.2})")
}

pub(crate) fn json(machine: &Machine, settings: &Value, contest: &Contest, verdicts: &[Verdict]) -> Value {
    let lines: Vec<_> = verdicts
        .iter()
        .map(|verdict| {
            json!({
                "what": verdict.what,
                "against": verdict.against,
                "ratio": verdict.ratio.as_ref().map(spread_json),
                "bare_loop": verdict.bare.as_ref().map(spread_json),
                "at_least": verdict.at_least,
                "goal": verdict.goal,
                "note": verdict.note,
                "holds": verdict.holds(),
            })
        })
        .collect();
    let figures: Vec<_> = contest
        .figures()
        .flat_map(|(work, figures)| figures.into_iter().map(move |(entry, figure)| (work, entry, figure)))
        .map(|(work, entry, figure)| {
            json!({
                "work": work.name(),
                "contender": entry.contender(),
                "gb_per_s": spread_json(&figure),
                "rounds": contest.rounds(entry).iter().map(|speed| speed / 1e9).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "machine": machine.json(), "settings": settings, "lines": lines, "figures": figures })
}

fn spread_json(Spread { median, least, most }: &Spread) -> Value {
    json!({ "median": median, "min": least, "max": most })
}
