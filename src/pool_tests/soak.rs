//! A pool at its limits under random streams, over a disk that fails at random. What every stream reads is compared
//! with what was written; how it ends must be its own doing, or that of a fault that hit it and nobody else.

use std::{
    env, fs,
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    task::{JoinSet, yield_now},
};

use super::{
    MIB, eventually, nothing_is_left, pattern,
    weather::{Weather, mix},
    within,
};
use crate::{
    Control, OnFull, PoolHandle, SpillError, SpillPool, SpillReader, SpillWriter, StorageOp,
    storage::sys::{Platform, System, faulty::Scripted, hooked::Hooked},
};

/// At once.
const STREAMS: u64 = 100;
/// Of them that begin when the storm is over.
const CALM: u64 = 30;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % sides
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.roll(choices.len() as u64) as usize]
    }

    fn length(&mut self) -> usize {
        let most = self.of(&[100, 5_000, 40_000, 200_000]);
        1 + self.roll(most) as usize
    }
}

// What a stream has done to itself, noted before it is done.
const WRITER_DROPPED: u32 = 1;
const WRITER_FAILED: u32 = 2;
const READER_DROPPED: u32 = 4;
const CANCELLED: u32 = 8;
const FINISHED: u32 = 16;
/// It fails rather than waits.
const FAILS: u32 = 32;
/// It begins after the storm.
const BEGAN_LATE: u32 = 64;

/// What both sides of a stream know.
#[derive(Clone)]
struct Side {
    number: u64,
    control: Control,
    own: Arc<AtomicU32>,
    weather: Arc<Weather>,
}

impl Side {
    fn did(&self, what: u32) -> bool {
        self.own.load(SeqCst) & what != 0
    }

    fn does(&self, what: u32) {
        self.own.fetch_or(what, SeqCst);
    }

    /// An error must have its reason.
    fn explain(&self, error: &SpillError) {
        let explained = match error {
            SpillError::WriterDropped => self.did(WRITER_DROPPED),
            SpillError::WriterFailed { .. } => self.did(WRITER_FAILED),
            SpillError::ReaderDropped => self.did(READER_DROPPED),
            SpillError::Cancelled { .. } => self.did(CANCELLED),
            SpillError::DiskLimit { .. } => self.did(FAILS),
            _ => false,
        };
        if explained {
            return;
        }
        let because = self.weather.explains(self.control.stream_id(), error);
        let late = self.did(BEGAN_LATE);
        assert!(because.is_ok() && !late, "stream {}: {error:?}: {because:?}, late: {late}", self.number);
    }
}

/// Writes until it has had enough, or the other side has; ends as chance has it.
async fn write(mut writer: SpillWriter, side: Side, mut dice: Dice) {
    let (total, mut at) = (dice.roll(MIB as u64), 0);
    while at < total {
        let bytes = pattern(side.number, at, dice.length());
        let written = match dice.roll(4) {
            0 => {
                at += bytes.len() as u64;
                writer.write_bytes(bytes.into()).await
            }
            // A future that is dropped while it waits has taken nothing.
            1 => tokio::select! {
                biased;
                n = writer.write(&bytes) => n.map(|n| at += n as u64).map_err(|error| ours(&error)),
                () = yield_now() => Ok(()),
            },
            _ => {
                at += bytes.len() as u64;
                writer.write_all(&bytes).await.map_err(|error| ours(&error))
            }
        };
        if let Err(error) = written {
            side.explain(&error);
            // It repeats, and so nothing after it is a clean end.
            side.explain(&writer.finish().unwrap_err());
            return;
        }
        if dice.roll(8) == 0 {
            yield_now().await;
        }
    }
    match dice.roll(10) {
        0 => {
            side.does(WRITER_DROPPED);
            drop(writer);
        }
        1 => {
            side.does(WRITER_FAILED);
            writer.fail("as planned");
        }
        2 => {
            side.does(WRITER_FAILED);
            writer.abort("as planned");
        }
        _ => {
            side.does(FINISHED);
            if let Err(error) = writer.finish() {
                side.explain(&error);
            }
        }
    }
}

/// Reads at any speed and in any way, checks every byte, and may give up.
async fn read(mut reader: SpillReader, side: Side, mut dice: Dice) {
    let (mut buf, mut at, mut held) = (vec![0; 100_000], 0, Vec::new());
    let gives_up_at = if dice.roll(6) == 0 { dice.roll(MIB as u64) } else { u64::MAX };
    let check = |at: u64, bytes: &[u8]| {
        assert!(bytes == pattern(side.number, at, bytes.len()), "stream {}: wrong bytes at {at}", side.number);
        bytes.len()
    };
    let end = loop {
        if at >= gives_up_at {
            break None;
        }
        let pauses = dice.of(&[0, 1, 30]);
        for _ in 0..pauses {
            yield_now().await;
        }
        let most = dice.length().min(buf.len());
        let n = match dice.roll(5) {
            0 | 1 => reader.next_chunk().await.map(|chunk| {
                let n = chunk.as_deref().map_or(0, |chunk| check(at, chunk));
                held.extend(chunk);
                n
            }),
            2 => match reader.fill_buf().await {
                Ok(bytes) => {
                    let n = check(at, &bytes[..bytes.len().min(most)]);
                    reader.consume(n);
                    Ok(n)
                }
                Err(error) => Err(ours(&error)),
            },
            3 => tokio::select! {
                biased;
                n = reader.read(&mut buf[..most]) => n.map(|n| check(at, &buf[..n])).map_err(|error| ours(&error)),
                () = yield_now() => continue,
            },
            _ => {
                let n = reader.read(&mut buf[..most]).await;
                n.map(|n| check(at, &buf[..n])).map_err(|error| ours(&error))
            }
        };
        match n {
            Ok(0) => break Some(Ok(())),
            Ok(n) => at += n as u64,
            Err(error) => break Some(Err(error)),
        }
        if held.len() > 4 || dice.roll(3) == 0 {
            held.clear();
        }
    };
    match end {
        Some(Ok(())) => {
            assert!(side.did(FINISHED), "stream {}: a clean end that nobody made", side.number);
            assert_eq!(at, side.control.stats().written, "stream {}: it ends early", side.number);
        }
        Some(Err(error)) => {
            side.explain(&error);
            if let SpillError::Corrupt { offset, .. } | SpillError::Storage { op: StorageOp::Read, offset, .. } = &error
            {
                assert_eq!(*offset, at, "stream {}: {error}", side.number);
            }
        }
        None => {
            side.does(READER_DROPPED | CANCELLED);
            if dice.roll(2) == 0 {
                reader.cancel("enough");
            }
        }
    }
}

/// Ends a stream from outside, some time.
async fn meddle(side: Side, mut dice: Dice) {
    for _ in 0..dice.roll(3_000) {
        yield_now().await;
    }
    match dice.roll(3) {
        0 => {
            side.does(WRITER_FAILED);
            side.control.fail("from outside");
        }
        1 => {
            side.does(WRITER_FAILED);
            side.control.abort("from outside");
        }
        _ => {
            side.does(CANCELLED);
            side.control.cancel("from outside");
        }
    }
}

fn ours(error: &std::io::Error) -> SpillError {
    SpillError::from_io(error).expect("one of ours").clone()
}

fn begin(pool: &PoolHandle, weather: &Arc<Weather>, number: u64, own: u32, tasks: &mut JoinSet<()>, dice: &mut Dice) {
    let fails = dice.roll(5) == 0;
    let mut builder = pool.builder().memory_limit(dice.of(&[256 << 10, 300_000, MIB]));
    if dice.roll(4) == 0 {
        builder = builder.disk_limit(MIB as u64);
    }
    if fails {
        builder = builder.on_full(OnFull::Fail);
    }
    let (writer, reader) = builder.build().unwrap().into_split();
    let own = Arc::new(AtomicU32::new(own | if fails { FAILS } else { 0 }));
    let side = Side { number, control: reader.control(), own, weather: Arc::clone(weather) };
    let mut other = || Dice(dice.roll(u64::MAX));
    tasks.spawn(write(writer, side.clone(), other()));
    tasks.spawn(read(reader, side.clone(), other()));
    let mut meddler = other();
    if meddler.roll(10) == 0 {
        tasks.spawn(meddle(side, meddler));
    }
}

/// A hundred streams, of which a storm hits some, and those that begin when it is over. Says how many faults there were.
fn round(seed: u64, platform: impl Platform + 'static, current: &Seen) -> u64 {
    let mut dice = Dice(mix(seed));
    let weather = Weather::new(seed, dice.of(&[3, 10, 30, 100]));
    let hooked = Hooked::new(platform, {
        let weather = Arc::clone(&weather);
        move |call| weather.strike(call)
    });
    let (memory, disk) = (dice.of(&[MIB, 2 * MIB]), dice.of(&[2, 4, 12]) << 20);
    let pool = SpillPool::builder().memory_limit(memory).disk_limit(disk).retain(dice.of(&[0, 1 << 20, 64 << 20]));
    // Whose a slot was cannot be seen where it is encrypted in earnest.
    let encrypt = cfg!(not(feature = "encryption")) && seed.is_multiple_of(3);
    let pool = pool.encrypt(encrypt).assisted(seed % 4 > 1).min_free_space(1).build_on(hooked.clone()).unwrap();
    let from_the_start = dice.roll(2) == 0;
    *current.lock().unwrap() = Some(pool.clone());

    let watched = pool.clone();
    let run = {
        let (pool, weather) = (pool.clone(), Arc::clone(&weather));
        async move {
            let mut tasks = JoinSet::new();
            weather.set_storm(from_the_start);
            for number in 0..STREAMS {
                begin(&pool, &weather, number, 0, &mut tasks, &mut dice);
            }
            let (mut done, third) = (0, tasks.len() / 3);
            while let Some(task) = tasks.join_next().await {
                task.unwrap();
                let stats = pool.stats();
                assert!(stats.memory_held <= memory as u64 && stats.disk_held <= disk, "{stats:?}");
                done += 1;
                if done == third {
                    weather.set_storm(true);
                }
                if done == 2 * third {
                    weather.set_storm(false);
                    for number in STREAMS..STREAMS + CALM {
                        begin(&pool, &weather, number, BEGAN_LATE, &mut tasks, &mut dice);
                    }
                }
            }
        }
    };
    within(
        &format!("SOAK_SEED={seed}"),
        move || format!("{:?}", watched.stats()),
        move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
            runtime.block_on(run);
        },
    );
    current.lock().unwrap().take();
    nothing_is_left(&pool);
    drop(pool);
    eventually("the file is closed", || hooked.open() == 0);
    weather.faults()
}

/// The pool of the round that goes on.
type Seen = Arc<Mutex<Option<SpillPool>>>;

/// Writes down what is taken, once a second: seconds, then KiB of RSS, of memory held, and of the file. Until the sender goes.
fn log(file: &str, current: &Seen, over: &mpsc::Receiver<()>) {
    let mut file = fs::File::create(file).expect("a file to log to");
    let began = Instant::now();
    while over.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
        let stats = current.lock().unwrap().as_ref().map(|pool| pool.stats()).unwrap_or_default();
        let process = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let rss = process.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let rss = rss.trim().trim_end_matches(" kB");
        let (held, disk) = (stats.memory_held >> 10, stats.file_bytes >> 10);
        writeln!(file, "{} {rss} {held} {disk}", began.elapsed().as_secs()).expect("space");
    }
}

/// `SOAK_SECONDS` makes it longer, `SOAK_SEED` begins with the round that failed, `SOAK_LOG` is a file for what was taken over
/// time (`peers soak` draws it).
#[test]
fn whatever_fails_it_concerns_only_those_whom_it_hit_and_nothing_is_lost() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(number("SOAK_SECONDS").unwrap_or(3));
    let (mut seed, mut faults, mut rounds) = (number("SOAK_SEED").unwrap_or(1), 0, 0);
    let current = Seen::default();
    let (_over, is_over) = mpsc::channel();
    if let Ok(file) = env::var("SOAK_LOG") {
        let current = Arc::clone(&current);
        thread::spawn(move || log(&file, &current, &is_over));
    }
    while rounds < 2 || Instant::now() < end {
        let current = Arc::clone(&current);
        let run = move || match seed % 2 {
            0 => round(seed, System, &current),
            _ => round(seed, Scripted::default(), &current),
        };
        faults += std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            eprintln!("SOAK_SEED={seed} begins with the round that failed");
            std::panic::resume_unwind(panic)
        });
        seed += 1;
        rounds += 1;
    }
    assert!(faults > 0, "there was no storm");
    println!("{rounds} rounds, {faults} faults");
}
