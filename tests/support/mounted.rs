//! File systems of a test's own, in an image that is mounted for as long as the test has it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::eventually;

/// Whether disks are to be mounted; says so where they are not.
pub(crate) fn wanted() -> bool {
    let wanted = std::env::var_os("SPILL_REAL_DISKS").is_some();
    if !wanted {
        eprintln!("not tested: it mounts file systems, which wants root and SPILL_REAL_DISKS=1");
    }
    wanted
}

/// How an image of a kind is made.
pub(crate) struct FileSystem {
    pub(crate) name: &'static str,
    /// The image's length in bytes. It is sparse: only what is written to it takes space.
    len: u64,
    make: &'static [&'static str],
    /// What it is mounted with.
    options: &'static str,
}

/// No blocks are kept for root, who runs this.
pub(crate) const EXT4: FileSystem =
    FileSystem { name: "ext4", len: 16 << 20, make: &["mkfs.ext4", "-q", "-m", "0"], options: "loop" };
/// No smaller one can be made.
pub(crate) const XFS: FileSystem =
    FileSystem { name: "xfs", len: 320 << 20, make: &["mkfs.xfs", "-q"], options: "loop" };
/// What is freed is there again when btrfs has committed, which by itself it does every half minute.
pub(crate) const BTRFS: FileSystem =
    FileSystem { name: "btrfs", len: 160 << 20, make: &["mkfs.btrfs", "-q", "-m", "single"], options: "loop,commit=1" };

pub(crate) const DISKS: [&FileSystem; 3] = [&EXT4, &XFS, &BTRFS];

/// What is left free of each, about.
const ROOM: u64 = 14 << 20;

/// A mounted file system, whose image goes with it.
pub(crate) struct Mount {
    scratch: tempfile::TempDir,
    at: PathBuf,
    mounted: bool,
    free: u64,
    names: Vec<PathBuf>,
}

impl Mount {
    /// Nearly full, where it cannot be made small.
    pub(crate) fn new(disk: &FileSystem) -> Self {
        Self::shared(disk, 0).0
    }

    /// One of which a file of somebody else's takes so much; and that file.
    pub(crate) fn shared(disk: &FileSystem, bytes: u64) -> (Self, PathBuf) {
        for _ in 0..10 {
            let mut mount = Self::unmounted();
            mount.make(disk.len, disk.make);
            mount.mount(&["-o", disk.options], &mount.image()).unwrap();
            let others = mount.at.join("others");
            // Now and then a new btrfs is not ready to give what it says is free: then another one is made.
            let filled = mount.occupy("others", bytes).and_then(|()| mount.fill(ROOM - bytes));
            (mount.free, mount.names) = (mount.free(), mount.names());
            if filled.is_ok() && (7 << 20..ROOM - bytes + (2 << 20)).contains(&mount.free) {
                return (mount, others);
            }
            eprintln!("once more: {} are free of {}, {filled:?}", mount.free, disk.name);
        }
        panic!("no {} with room for the test can be made", disk.name);
    }

    /// One that lies in memory.
    pub(crate) fn memory(file_system: &str) -> Self {
        let mut mount = Self::unmounted();
        mount.mount(&["-t", file_system], Path::new("none")).unwrap();
        mount
    }

    /// With so much for one user; `None` where the kernel cannot.
    pub(crate) fn ext4_with_quota(user: u32, bytes: u64) -> Option<Self> {
        let mut mount = Self::unmounted();
        mount.make(EXT4.len, &["mkfs.ext4", "-q", "-m", "0", "-O", "quota"]);
        mount.mount(&["-o", "loop,usrquota"], &mount.image()).ok()?;
        let kib = (bytes >> 10).to_string();
        run(Command::new("setquota").args(["-u", &user.to_string(), &kib, &kib, "0", "0"]).arg(&mount.at)).unwrap();
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&mount.at, everybody).unwrap();
        Some(mount)
    }

    fn unmounted() -> Self {
        let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(scratch.path(), everybody).unwrap();
        let at = scratch.path().join("disk");
        fs::create_dir(&at).unwrap();
        Self { scratch, at, mounted: false, free: 0, names: Vec::new() }
    }

    fn make(&self, len: u64, make: &[&str]) {
        fs::File::create(self.image()).unwrap().set_len(len).unwrap();
        run(Command::new(make[0]).args(&make[1..]).arg(self.image())).unwrap();
    }

    fn mount(&mut self, options: &[&str], what: &Path) -> Result<(), String> {
        run(Command::new("mount").args(options).arg(what).arg(&self.at))?;
        self.mounted = true;
        Ok(())
    }

    fn image(&self) -> PathBuf {
        self.scratch.path().join("image")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Leaves so much room.
    fn fill(&self, room: u64) -> std::io::Result<()> {
        match self.free().checked_sub(room).filter(|&excess| excess > 1 << 20) {
            Some(excess) => self.occupy("ballast", excess),
            None => Ok(()),
        }
    }

    /// A file of this length, which takes as much of the disk.
    fn occupy(&self, name: &str, bytes: u64) -> std::io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let file = fs::File::create(self.at.join(name))?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        // Before it is on its way, btrfs does not know what it takes.
        Ok(rustix::fs::syncfs(&file)?)
    }

    /// Bytes that a user may still take.
    pub(crate) fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.at).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    pub(crate) fn free_at_first(&self) -> u64 {
        self.free
    }

    pub(crate) fn names(&self) -> Vec<PathBuf> {
        let mut names: Vec<_> = fs::read_dir(&self.at).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }

    pub(crate) fn names_at_first(&self) -> &[PathBuf] {
        &self.names
    }

    pub(crate) fn remount(&self, option: &str) -> Result<(), String> {
        run(Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(&self.at))
    }

    /// As if the device had gone: every call fails with EIO from now on.
    pub(crate) fn shut_down(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.at)).unwrap();
    }

    /// Bounds what the whole of a btrfs may hold.
    pub(crate) fn btrfs_quota(&self, bytes: u64) {
        run(Command::new("btrfs").args(["quota", "enable"]).arg(&self.at)).unwrap();
        run(Command::new("btrfs").args(["quota", "rescan", "-w"]).arg(&self.at)).unwrap();
        // What is there counts too.
        let held: u64 = self.names.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        let limit = (held + bytes).to_string();
        run(Command::new("btrfs").args(["qgroup", "limit", &limit]).arg(&self.at)).unwrap();
    }

    /// Takes the way there away; what is open stays so.
    pub(crate) fn unmount_lazily(&mut self) {
        run(Command::new("umount").arg("-l").arg(&self.at)).unwrap();
        self.mounted = false;
    }

    pub(crate) fn is_mounted(&self) -> bool {
        let at = self.at.display().to_string();
        fs::read_to_string("/proc/mounts").unwrap().lines().any(|line| line.split(' ').nth(1) == Some(&at))
    }

    /// Whether a loop device has the image.
    pub(crate) fn is_in_use(&self) -> bool {
        let devices = fs::read_dir("/sys/block").unwrap().flatten();
        devices.into_iter().any(|device| {
            let file = fs::read_to_string(device.path().join("loop/backing_file"));
            file.is_ok_and(|file| Path::new(file.trim_end()) == self.image())
        })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, for what a failed test has left open goes with the process.
        if self.mounted
            && let Err(error) = run(Command::new("umount").arg("-l").arg(&self.at))
        {
            eprintln!("{} is still mounted: {error}", self.at.display());
        }
        if !std::thread::panicking() {
            eventually("the image is let go", || !self.is_in_use());
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}: {told}", output.status)) }
}
