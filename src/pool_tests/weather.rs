//! Faults at random, and a log of them: every one can be told from all others, so that each error can be asked
//! where it came from.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use super::{Spot, identity, identity_in, spot};
use crate::{
    SpillError,
    slot::TRAILER,
    storage::sys::{
        RawFile,
        hooked::{Act, Call},
    },
};

/// The inside of an error that was made here.
#[derive(Debug)]
struct Injected(u64);

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault {}", self.0)
    }
}

impl std::error::Error for Injected {}

/// A stream, and the offset of a block in it.
type Place = (u64, u64);

#[derive(Debug)]
pub(super) struct Weather {
    seed: u64,
    /// One call of so many is hit while there is a storm.
    rarity: u64,
    storm: AtomicBool,
    calls: AtomicU64,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    serial: u64,
    panics: usize,
    writes_of_nothing: usize,
    /// Slots whose payload is wrong, until their trailer says whose they are.
    spoilt: HashSet<u64>,
    /// Slots whose trailer is wrong, and whose they are.
    misnamed: HashMap<u64, Place>,
    /// What does not come back as it was written.
    wrong: HashSet<Place>,
    /// Where a read ended early.
    cut: HashSet<Place>,
    /// To whom a fault was told.
    told: HashMap<u64, u64>,
    /// Who was told of a panic, and of a write of nothing.
    panicked: HashSet<u64>,
    unwritten: HashSet<u64>,
}

impl Weather {
    pub(super) fn new(seed: u64, rarity: u64) -> Arc<Self> {
        let (calls, log) = (AtomicU64::new(0), Mutex::default());
        Arc::new(Self { seed, rarity, storm: AtomicBool::new(false), calls, log })
    }

    pub(super) fn set_storm(&self, storm: bool) {
        self.storm.store(storm, SeqCst);
    }

    /// How many faults there were that somebody might be told of.
    pub(super) fn faults(&self) -> u64 {
        self.log().serial
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    /// What becomes of a call.
    pub(super) fn strike(&self, call: &Call<'_>) -> Act {
        let mut dice = mix(self.seed ^ mix(self.calls.fetch_add(1, SeqCst)));
        let mut roll = |sides: u64| {
            dice = mix(dice);
            dice % sides
        };
        let hit = self.storm.load(SeqCst) && roll(self.rarity) == 0;
        let act = if hit { self.choose(call, &mut roll) } else { Act::Go };
        if let Call::Write { bufs, at, .. } = call {
            self.note_write(bufs, *at, &act);
        }
        act
    }

    fn choose(&self, call: &Call<'_>, roll: &mut impl FnMut(u64) -> u64) -> Act {
        use io::ErrorKind::{Interrupted, InvalidInput, Other, StorageFull, WouldBlock};
        match call {
            Call::Create => match roll(3) {
                0 => self.fail(StorageFull),
                1 => self.fail(Other),
                _ => self.panic(),
            },
            Call::Space => match roll(3) {
                0 => Act::Space(roll(1 << 20), 1 << 40),
                1 => self.fail(Other),
                _ => self.panic(),
            },
            Call::Write { bufs, at, .. } => match roll(7) {
                0 => self.fail(StorageFull),
                1 => self.fail(Other),
                2 => self.fail(Interrupted),
                3 => Act::Short,
                // What is left of a trailer after a short write would not tell whose bit it is.
                4 if matches!(spot(*at), Spot::Trailer(_)) && at % TRAILER as u64 != 0 => Act::Go,
                4 => Act::Flip(roll(length(bufs)) as usize),
                5 => self.panic(),
                _ => {
                    self.log().writes_of_nothing += 1;
                    Act::Nothing
                }
            },
            // Of reads in place a panic would be the reader's own.
            Call::Read { file, len, at, cached } => match roll(if *cached { 7 } else { 6 }) {
                0 => self.fail(Other),
                1 => self.fail(Interrupted),
                2 => Act::Short,
                3 => {
                    self.log().cut(*file, *at);
                    Act::Nothing
                }
                4 => {
                    let byte = roll(*len as u64);
                    self.log().spoil(*file, *at + byte);
                    Act::Flip(byte as usize)
                }
                5 if !cached => self.panic(),
                5 => self.fail(if roll(20) == 0 { InvalidInput } else { Interrupted }),
                _ => self.fail(WouldBlock),
            },
            Call::Punch { .. } => match roll(4) {
                0 => self.fail(Interrupted),
                1 if roll(10) == 0 => self.fail(InvalidInput),
                2 => self.panic(),
                _ => self.fail(Other),
            },
            Call::SetLen => self.fail(if roll(2) == 0 { StorageFull } else { Other }),
        }
    }

    fn fail(&self, kind: io::ErrorKind) -> Act {
        let mut log = self.log();
        log.serial += 1;
        Act::Fail(io::Error::new(kind, Injected(log.serial)))
    }

    fn panic(&self) -> Act {
        self.log().panics += 1;
        Act::Panic
    }

    /// Follows a bit that is wrong in a payload to the trailer that says whose it is.
    fn note_write(&self, bufs: &[io::IoSlice<'_>], at: u64, act: &Act) {
        let mut log = self.log();
        match spot(at) {
            Spot::Payload(first) => {
                let last = first + length(bufs).div_ceil(super::BLOCK as u64);
                log.spoilt.retain(|slot| !(first..last).contains(slot));
                if let (Act::Flip(_), Spot::Payload(slot)) = (act, spot(at + flip(act))) {
                    log.spoilt.insert(slot);
                }
            }
            Spot::Trailer(first) => {
                // A short write may have left off within a trailer; what follows of it tells nothing new.
                let skip = (TRAILER as u64 - at % TRAILER as u64) % TRAILER as u64;
                let trailers = bufs.iter().flat_map(|buf| buf[skip as usize..].chunks_exact(TRAILER));
                for (trailer, slot) in trailers.zip(first + u64::from(skip > 0)..) {
                    log.misnamed.remove(&slot);
                    let own = spot(at + flip(act)) == Spot::Trailer(slot) && matches!(act, Act::Flip(_));
                    if own {
                        log.misnamed.insert(slot, identity_in(trailer));
                    }
                    if own || log.spoilt.contains(&slot) {
                        log.wrong.insert(identity_in(trailer));
                    }
                }
            }
        }
    }

    /// Whether an error of the storage is due to something that hit this stream and no other; else what is wrong.
    pub(super) fn explains(&self, stream: u64, error: &SpillError) -> Result<(), String> {
        let mut log = self.log();
        let (source, offset) = match error {
            SpillError::Corrupt { offset, .. } => {
                return holds(&log.wrong, stream, *offset).then_some(()).ok_or("nothing there was spoilt".into());
            }
            SpillError::Storage { source, offset, .. } => (source, *offset),
            SpillError::DiskLimit { source: Some(source), .. } => (source, 0),
            _ => return Err("it is not about storage".into()),
        };
        if let Some(Injected(serial)) = source.get_ref().and_then(|inner| inner.downcast_ref()) {
            let whose = *log.told.entry(*serial).or_insert(stream);
            let own = whose == stream;
            return own.then_some(()).ok_or_else(|| format!("the fault was told to stream {whose} already"));
        }
        let known = match source.kind() {
            io::ErrorKind::UnexpectedEof => holds(&log.cut, stream, offset),
            io::ErrorKind::WriteZero => {
                log.unwritten.insert(stream);
                log.unwritten.len() <= log.writes_of_nothing
            }
            io::ErrorKind::StorageFull => source.to_string().contains("min_free_space"),
            _ => {
                log.panicked.insert(stream);
                source.to_string().contains("panicked") && log.panicked.len() <= log.panics
            }
        };
        known.then_some(()).ok_or("no fault was like this".into())
    }
}

impl Log {
    /// Whose block lies there. Who reads it holds its slot, so its trailer is the last that was written.
    fn whose(&self, file: &dyn RawFile, at: u64) -> Place {
        let (Spot::Payload(slot) | Spot::Trailer(slot)) = spot(at);
        self.misnamed.get(&slot).copied().unwrap_or_else(|| identity(file, slot))
    }

    fn cut(&mut self, file: &dyn RawFile, at: u64) {
        let place = self.whose(file, at);
        self.cut.insert(place);
    }

    fn spoil(&mut self, file: &dyn RawFile, at: u64) {
        let place = self.whose(file, at);
        self.wrong.insert(place);
    }
}

/// Whether one of these blocks is where the stream came to a halt: at its beginning, unless part of it was read before.
fn holds(places: &HashSet<Place>, stream: u64, offset: u64) -> bool {
    places.iter().any(|(of, start)| *of == stream && (*start..start + super::BLOCK as u64).contains(&offset))
}

fn flip(act: &Act) -> u64 {
    if let Act::Flip(byte) = act { *byte as u64 } else { 0 }
}

fn length(bufs: &[io::IoSlice<'_>]) -> u64 {
    bufs.iter().map(|buf| buf.len() as u64).sum()
}

/// A number that depends on every bit of another.
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_add(super::ODD).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
