//! What the contract tests share. Never sleeps to give something time: it waits for a wake-up, a
//! signal or a condition, and a deadline turns a hang into a failure.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses its own part of this")]

use std::{
    fs, io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    pin::{Pin, pin},
    process::{Command, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use bytes::Bytes;
use spillbuffer::{Builder, SpillBuffer, SpillError, SpillReader, SpillStats, SpillWriter};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

/// Far beyond what any test takes: only a hang meets it.
pub const HANG: Duration = Duration::from_secs(30);

pub const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;

// ---- bytes that tell where they belong ----

/// A prime, so that no two places that are a block, a page or a slot apart look alike.
const PERIOD: u64 = 1_048_573;

static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random::new(0x5911_1b0f);
    let once: Vec<u8> = (0..PERIOD).map(|_| random.next() as u8).collect();
    once.iter().chain(&once).chain(&once).copied().collect()
});

/// The stream's bytes from `at` on. Up to 2 MiB at a time.
pub fn pattern(at: u64, len: usize) -> &'static [u8] {
    &TABLE[(at % PERIOD) as usize..][..len]
}

/// The same of any length, as the user's own memory.
pub fn item(at: u64, len: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let n = (len - bytes.len()).min(MIB);
        bytes.extend_from_slice(pattern(at + bytes.len() as u64, n));
    }
    bytes.into()
}

/// Refuses bytes that are not the stream's at `at`, and says where they differ first.
#[track_caller]
pub fn verify(at: u64, got: &[u8]) {
    for (i, part) in got.chunks(MIB).enumerate() {
        let at = at + (i * MIB) as u64;
        let expected = pattern(at, part.len());
        if part != expected {
            let first = part.iter().zip(expected).position(|(a, b)| a != b).unwrap();
            panic!("wrong byte at offset {}: {} instead of {}", at + first as u64, part[first], expected[first]);
        }
    }
}

/// Deterministic, so that a failure can be met again.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Sizes at which code goes wrong: around powers of two, blocks and pages, and tiny ones.
    pub fn adversarial(&mut self, most: usize) -> usize {
        const EDGES: [usize; 14] =
            [1, 2, 511, 512, 513, 4095, 4096, 4097, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537];
        let n = match self.below(4) {
            0 => EDGES[self.below(EDGES.len())],
            1 => 1 + self.below(100),
            2 => 1 + self.below(20_000),
            _ => 1 + self.below(150_000),
        };
        n.min(most)
    }
}

// ---- waiting ----

/// Counts how often it was woken, and can be waited for.
pub struct Counting {
    wakes: AtomicUsize,
    thread: Thread,
}

impl Counting {
    /// Belongs to the thread that makes it.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { wakes: AtomicUsize::new(0), thread: thread::current() })
    }

    pub fn wakes(&self) -> usize {
        self.wakes.load(Ordering::SeqCst)
    }

    pub fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// Waits until it has been woken more than `before` times.
    #[track_caller]
    pub fn wait_beyond(&self, before: usize) {
        let deadline = Instant::now() + HANG;
        while self.wakes() <= before {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nobody was woken");
            thread::park_timeout(left);
        }
    }
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// Polls once with a waker that does nothing.
pub fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs a future without any runtime. Polls again only when woken, so that a lost wake-up is a
/// failure and not a slow success.
#[track_caller]
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let counting = Counting::new();
    let waker = counting.waker();
    loop {
        let before = counting.wakes();
        if let Poll::Ready(out) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return out;
        }
        counting.wait_beyond(before);
    }
}

/// A future that must not hang, on tokio with a timer.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(HANG, future).await.expect("it hangs")
}

/// A current-thread runtime with a timer.
pub fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

pub fn multi_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

/// Runs on a thread of its own what may park that thread, and fails if it does not come back.
#[track_caller]
pub fn comes_back<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, told) = mpsc::channel();
    let worker = thread::spawn(move || {
        let _ = done.send(work());
    });
    match told.recv_timeout(HANG) {
        Ok(value) => {
            worker.join().unwrap();
            value
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!(),
        },
    }
}

/// Waits for what the system or an I/O thread does in its own time, looking now and then.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    assert!(holds_within(HANG, &mut holds), "{what}: not within {HANG:?}");
}

/// Whether a condition comes true in this time.
pub fn holds_within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        // Only the pace of looking; what is waited for is `holds`.
        thread::park_timeout(Duration::from_micros(500));
    }
}

/// Keeps a loop that polls by hand from going round for ever.
pub struct Rounds(Instant);

impl Rounds {
    pub fn new() -> Self {
        Self(Instant::now() + HANG)
    }

    #[track_caller]
    pub fn next(&self) {
        assert!(Instant::now() < self.0, "it gets nowhere");
    }
}

/// Sets a flag when it is dropped.
pub struct DropFlag(pub Arc<AtomicBool>);

impl Drop for DropFlag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

// ---- a directory on disk, and the nameless files in it ----

/// A directory of one test's own, in the build's directory, which is on a disk where anything is.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path that does not exist: whoever would make a file there fails.
    pub fn missing(&self) -> PathBuf {
        self.path().join("missing")
    }

    /// A builder whose file comes to lie here.
    pub fn builder(&self, memory_limit: usize) -> Builder {
        SpillBuffer::builder().memory_limit(memory_limit).temp_dir(self.path())
    }

    /// The same where what is on disk is as it was written, for those who look for it there.
    pub fn plain(&self, memory_limit: usize) -> Builder {
        let builder = self.builder(memory_limit);
        #[cfg(feature = "encryption")]
        let builder = builder.encrypt(false);
        builder
    }

    pub fn split(&self, memory_limit: usize) -> (SpillWriter, SpillReader) {
        self.builder(memory_limit).build().unwrap().into_split()
    }

    /// This process's open files in the directory, deleted ones included.
    pub fn open_files(&self) -> Vec<OpenFile> {
        open_files_in(self.path())
    }

    /// The one open file there is.
    #[track_caller]
    pub fn file(&self) -> OpenFile {
        let mut files = self.open_files();
        assert_eq!(files.len(), 1, "{files:?}");
        files.pop().unwrap()
    }

    /// Bytes that the directory's open files have allocated.
    pub fn allocated(&self) -> u64 {
        self.open_files().iter().map(OpenFile::allocated).sum()
    }

    pub fn is_empty(&self) -> bool {
        fs::read_dir(self.path()).unwrap().next().is_none()
    }
}

/// A descriptor of this process, through which a file that has no name can be reached.
#[derive(Debug)]
pub struct OpenFile {
    pub proc_path: PathBuf,
    pub fd: String,
    pub link: String,
}

pub fn open_files_in(dir: &Path) -> Vec<OpenFile> {
    let inside = format!("{}/", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        // Other tests of this process open and close descriptors meanwhile.
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        let link = link.to_string_lossy().into_owned();
        if link.starts_with(&inside) {
            let fd = entry.file_name().to_string_lossy().into_owned();
            found.push(OpenFile { proc_path: entry.path(), fd, link });
        }
    }
    found
}

impl OpenFile {
    /// `st_blocks`, in bytes; 0 once it is closed.
    pub fn allocated(&self) -> u64 {
        fs::metadata(&self.proc_path).map_or(0, |meta| meta.blocks() * 512)
    }

    pub fn metadata(&self) -> fs::Metadata {
        fs::metadata(&self.proc_path).unwrap()
    }

    /// The flags it was opened with.
    pub fn flags(&self) -> u32 {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd)).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        u32::from_str_radix(flags.trim(), 8).unwrap()
    }

    /// A second descriptor of the same file.
    pub fn open(&self) -> fs::File {
        fs::File::options().read(true).write(true).open(&self.proc_path).unwrap()
    }

    /// Where the stream's bytes from `at` lie in the file, if they do. Payload begins on 16 bytes.
    pub fn find(&self, at: u64) -> Option<u64> {
        let needle = pattern(at, 64);
        let file = self.open();
        let len = file.metadata().unwrap().len();
        let mut window = vec![0; MIB + 64];
        let mut from = 0;
        while from < len {
            let n = read_full(&file, &mut window, from);
            for i in (0..n.saturating_sub(63)).step_by(16) {
                if window[i] == needle[0] && window[i..i + 64] == *needle {
                    return Some(from + i as u64);
                }
            }
            from += MIB as u64;
        }
        None
    }
}

fn read_full(file: &fs::File, buf: &mut [u8], at: u64) -> usize {
    let mut n = 0;
    while n < buf.len() {
        match file.read_at(&mut buf[n..], at + n as u64).unwrap() {
            0 => break,
            more => n += more,
        }
    }
    n
}

/// The name of a memory-backed directory that exists here, if there is one to test with.
pub fn memory_backed_dir() -> Option<&'static Path> {
    const TMPFS: u64 = 0x0102_1994;
    let dir = Path::new("/dev/shm");
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast, reason = "the type differs between architectures")]
    let magic = rustix::fs::statfs(dir).ok()?.f_type as u64;
    let writable = tempfile::tempfile_in(dir).is_ok();
    (magic == TMPFS && writable).then_some(dir)
}

// ---- the two ends, by hand and to the full ----

/// Polls a write once.
pub fn try_write(writer: &mut SpillWriter, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    Pin::new(writer).poll_write(cx, bytes)
}

/// Polls a read once.
pub fn try_read(reader: &mut SpillReader, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buf = ReadBuf::new(buf);
    Pin::new(reader).poll_read(cx, &mut buf).map_ok(|()| buf.filled().len())
}

/// Polls `fill_buf` once, and consumes what `take` says of its length.
pub fn try_fill(
    reader: &mut SpillReader,
    cx: &mut Context<'_>,
    at: u64,
    take: impl FnOnce(usize) -> usize,
) -> Poll<io::Result<usize>> {
    let shown = match Pin::new(&mut *reader).poll_fill_buf(cx) {
        Poll::Ready(Ok(shown)) => shown,
        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
        Poll::Pending => return Poll::Pending,
    };
    verify(at, shown);
    let n = take(shown.len());
    let taken = n.min(shown.len());
    Pin::new(reader).consume(n);
    Poll::Ready(Ok(taken))
}

/// Writes the stream's bytes `at..at + len`, waiting as often as it must.
#[track_caller]
pub fn write_pattern(writer: &mut SpillWriter, at: u64, len: usize) {
    let mut done = 0;
    while done < len {
        let n = (len - done).min(64 * KIB);
        done += write_some(writer, pattern(at + done as u64, n)).unwrap();
    }
}

/// One write.
#[track_caller]
pub fn write_some(writer: &mut SpillWriter, bytes: &[u8]) -> io::Result<usize> {
    block_on(std::future::poll_fn(|cx| try_write(writer, cx, bytes)))
}

/// One read.
#[track_caller]
pub fn read_some(reader: &mut SpillReader, buf: &mut [u8]) -> io::Result<usize> {
    block_on(std::future::poll_fn(|cx| try_read(reader, cx, buf)))
}

/// Reads and checks `len` bytes of the stream from `at`.
#[track_caller]
pub fn read_pattern(reader: &mut SpillReader, at: u64, len: usize) {
    let mut buf = vec![0; len.min(64 * KIB)];
    let mut done = 0;
    while done < len {
        let want = (len - done).min(buf.len());
        let n = read_some(reader, &mut buf[..want]).unwrap();
        assert!(n > 0, "the stream ends at {}", at + done as u64);
        verify(at + done as u64, &buf[..n]);
        done += n;
    }
}

/// Reads and checks the stream from `at` until its end or its error; how far it went, and which.
#[track_caller]
pub fn read_to_end(reader: &mut SpillReader, mut at: u64) -> (u64, io::Result<()>) {
    let mut buf = vec![0; 64 * KIB];
    loop {
        match read_some(reader, &mut buf) {
            Ok(0) => return (at, Ok(())),
            Ok(n) => {
                verify(at, &buf[..n]);
                at += n as u64;
            }
            Err(error) => return (at, Err(error)),
        }
    }
}

/// Writes the stream from `at` while nobody reads, until a write is `Pending` for longer than any grace
/// and any disk write could explain, or fails. Returns the offset that was reached.
///
/// The limit on patience is the one place where time stands for "never": a writer that is still
/// pending would only be seen as full, and what follows says whether it was.
///
/// A buffer that is never full fails the test, not the machine.
#[track_caller]
pub fn fill_up(writer: &mut SpillWriter, at: u64) -> (u64, Option<io::Error>) {
    fill_up_within(Duration::from_millis(300), writer, at)
}

/// The same where a write must fail, however long a busy machine and a full disk take to say so.
#[track_caller]
pub fn fill_up_until_told(writer: &mut SpillWriter, at: u64) -> (u64, io::Error) {
    let (at, error) = fill_up_within(HANG, writer, at);
    (at, error.unwrap_or_else(|| panic!("no write says so: {:?}", writer.stats())))
}

#[track_caller]
pub fn fill_up_within(patience: Duration, writer: &mut SpillWriter, mut at: u64) -> (u64, Option<io::Error>) {
    let counting = Counting::new();
    let waker = counting.waker();
    loop {
        let before = counting.wakes();
        match try_write(writer, &mut Context::from_waker(&waker), pattern(at, 64 * KIB)) {
            Poll::Ready(Ok(n)) => {
                at += n as u64;
                assert!(at < 100 << 20, "it takes whatever comes: {:?}", writer.stats());
            }
            Poll::Ready(Err(error)) => return (at, Some(error)),
            Poll::Pending => {
                if !holds_within(patience, || counting.wakes() > before) {
                    return (at, None);
                }
            }
        }
    }
}

/// What must hold of the figures at any time, whoever is doing what.
#[track_caller]
pub fn identities(stats: &SpillStats, memory_limit: usize, disk_limit: Option<u64>) {
    assert_eq!(stats.written - stats.read, stats.in_memory + stats.on_disk, "{stats:?}");
    bounds(stats, memory_limit, disk_limit);
}

/// Those that hold even when a side has given the backlog up.
#[track_caller]
pub fn bounds(stats: &SpillStats, memory_limit: usize, disk_limit: Option<u64>) {
    assert!(stats.memory_held <= memory_limit as u64, "{stats:?}");
    assert!(stats.peak_memory_held <= memory_limit as u64, "{stats:?}");
    assert!(stats.memory_held <= stats.peak_memory_held, "{stats:?}");
    assert!(stats.lent <= stats.memory_held, "{stats:?}");
    assert!(stats.on_disk <= stats.disk_held, "{stats:?}");
    assert!(stats.disk_held <= stats.peak_disk_held, "{stats:?}");
    assert!(stats.on_disk <= stats.peak_on_disk, "{stats:?}");
    assert!(stats.in_memory <= stats.peak_in_memory, "{stats:?}");
    assert!(stats.on_disk <= stats.spilled, "{stats:?}");
    if let Some(limit) = disk_limit {
        assert!(stats.disk_held <= limit, "{stats:?}");
        assert!(stats.peak_disk_held <= limit, "{stats:?}");
        assert!(stats.file_bytes <= limit, "{stats:?}");
    }
}

// ---- a process of its own ----

const CHILD: &str = "SPILLBUFFER_TEST_CHILD";

/// Whether this process was made by [`child`] for the test of this name.
pub fn is_child_for(test: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|of| of == test)
}

/// A command that runs one test of this binary again, in a process of its own, where limits and the
/// environment can be changed, or which can be killed.
pub fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, test);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs `body` in a process of its own, whose failure is this test's.
#[track_caller]
pub fn in_child(test: &str, setup: impl FnOnce(&mut Command), body: impl FnOnce()) {
    if is_child_for(test) {
        body();
        println!("child: done");
        return;
    }
    let mut command = child(test);
    setup(&mut command);
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the child died: {}\n{out}\n{err}", output.status);
    assert!(out.contains("child: done"), "the child did not run the test\n{out}\n{err}");
}

#[track_caller]
pub fn spill(error: &io::Error) -> &SpillError {
    SpillError::from_io(error).unwrap_or_else(|| panic!("no SpillError in {error:?}"))
}

/// Everything that was accepted comes out, then an error that is not the end.
#[track_caller]
pub fn everything_then_an_error(reader: &mut SpillReader, accepted: u64) -> SpillError {
    let (at, end) = read_to_end(reader, 0);
    assert_eq!(at, accepted, "{end:?}");
    spill(&end.expect_err("not a clean end")).clone()
}
