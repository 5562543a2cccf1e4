//! What encryption at rest costs a stream that spills: the same GiB with and without, one after the other. Prints the ratio and
//! what is wanted, and fails where it falls short.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use spillbuffer::SpillBuffer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, Runtime},
};

const GIB: usize = 1 << 30;
const PIECE: usize = 64 << 10;
const ROUNDS: usize = 7;
const WANTED: f64 = 0.7;

/// A GiB written with nobody reading, then read; how long each took.
fn backlog(runtime: &Runtime, encrypt: bool) -> (Duration, Duration) {
    let buffer = SpillBuffer::builder().encrypt(encrypt).build().expect("good options");
    let (mut writer, mut reader) = buffer.into_split();
    let piece: Vec<u8> = (0..PIECE).map(|at| (at % 251) as u8).collect();
    let work = async move {
        let started = Instant::now();
        for _ in 0..GIB / PIECE {
            writer.write_all(&piece).await?;
        }
        writer.finish()?;
        let written = started.elapsed();
        let started = Instant::now();
        let mut got = vec![0; PIECE];
        for _ in 0..GIB / PIECE {
            reader.read_exact(&mut got).await?;
            assert_eq!(got, piece);
        }
        Ok::<_, std::io::Error>((written, started.elapsed()))
    };
    runtime.block_on(async { tokio::spawn(work).await }).expect("no panic").expect("a disk")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> ExitCode {
    let runtime = Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    // Pages that nobody has touched before cost ten times as much.
    backlog(&runtime, false);
    let rounds: Vec<_> = (0..ROUNDS).map(|_| (backlog(&runtime, false), backlog(&runtime, true))).collect();
    let of = |take: fn((Duration, Duration)) -> Duration| {
        let ratio = |&(plain, sealed)| take(plain).as_secs_f64() / take(sealed).as_secs_f64();
        median(rounds.iter().map(ratio).collect())
    };
    for (name, side) in [("without", 0), ("with", 1)] {
        let ms = |take: fn((Duration, Duration)) -> Duration| {
            median(rounds.iter().map(|&(plain, sealed)| take([plain, sealed][side]).as_secs_f64() * 1e3).collect())
        };
        println!(
            "{name}: a GiB written in {:.0} ms, read in {:.0} ms",
            ms(|(written, _)| written),
            ms(|(_, read)| read)
        );
    }
    let (written, read, all) = (of(|(written, _)| written), of(|(_, read)| read), of(|(written, read)| written + read));
    println!("of the speed without: writing {written:.2}, reading {read:.2}, together {all:.2}; at least {WANTED}");
    if all >= WANTED {
        ExitCode::SUCCESS
    } else {
        println!("FALLS SHORT");
        ExitCode::FAILURE
    }
}
