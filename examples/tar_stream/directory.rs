//! Packs a directory: modes, times, links, long names and names in any encoding, in a fixed order.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::UNIX_EPOCH;

#[cfg(unix)]
use rustix::fs::OFlags;
use tar::{EntryType, Header};

use crate::fault::Fault;
use crate::source::Tar;

/// Writes everything under `root` but the sockets, which a tar cannot hold: those it names to `skipped`.
pub(crate) fn pack(root: &Path, tar: &mut Tar, skipped: &Sender<String>) -> io::Result<()> {
    let mut packer = Packer { root, tar, links: HashMap::new(), skipped };
    // Through a link, if it is one: what was asked for is the directory.
    let meta = fs::metadata(root).map_err(|e| Fault::new(root, "cannot read", e))?;
    packer.tar.append_data(&mut header(&meta), "./", io::empty())?;

    // A list, not recursion: the depth is the tree's, and so would be the stack's.
    let mut levels = vec![Level::open(root, PathBuf::new())?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next() else {
            levels.pop();
            continue;
        };
        let name = level.dir.join(name);
        if packer.add(&name)? {
            levels.push(Level::open(&root.join(&name), name)?);
        }
    }
    Ok(())
}

/// A directory that is being packed.
struct Level {
    dir: PathBuf,
    /// All of them, sorted: the one thing here that grows with a directory.
    names: std::vec::IntoIter<OsString>,
}

impl Level {
    fn open(path: &Path, dir: PathBuf) -> Result<Self, Fault> {
        let names = fs::read_dir(path)
            .and_then(|listing| listing.map(|entry| entry.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>());
        let mut names = names.map_err(|e| Fault::new(path, "cannot list", e))?;
        names.sort_unstable();
        Ok(Self { dir, names: names.into_iter() })
    }
}

struct Packer<'a> {
    root: &'a Path,
    tar: &'a mut Tar,
    /// First names of files that have more names still to come.
    links: HashMap<FileId, Link>,
    skipped: &'a Sender<String>,
}

/// Device and inode.
type FileId = (u64, u64);

struct Link {
    first: PathBuf,
    names_left: u64,
}

impl Packer<'_> {
    /// Packs what `name` is, and says whether that is a directory to go into.
    fn add(&mut self, name: &Path) -> io::Result<bool> {
        let path = self.root.join(name);
        let meta = fs::symlink_metadata(&path).map_err(|e| Fault::new(&path, "cannot read", e))?;
        let kind = meta.file_type();
        let name = &*name_in_tar(name);
        if kind.is_dir() {
            // A name that ends in a slash, as every tar has it.
            self.tar.append_data(&mut header(&meta), name.join(""), io::empty())?;
        } else if let Some(first) = self.seen_before(&meta, name) {
            let mut header = header(&meta);
            header.set_entry_type(EntryType::Link);
            header.set_size(0);
            self.tar.append_link(&mut header, name, first)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(|e| Fault::new(&path, "cannot read", e))?;
            self.add_symlink(header(&meta), name, &target)?;
        } else if kind.is_file() {
            let file = Unchanging::open(&path, &meta)?;
            self.tar.append_data(&mut header(&meta), name, file)?;
        } else {
            self.add_special(&path, name, &meta)?;
        }
        Ok(kind.is_dir())
    }

    /// The name under which the same file is in the tar already.
    fn seen_before(&mut self, meta: &Metadata, name: &Path) -> Option<PathBuf> {
        let (id, names) = file_id(meta).filter(|(_, names)| *names > 1)?;
        let Some(link) = self.links.get_mut(&id) else {
            self.links.insert(id, Link { first: name.to_owned(), names_left: names - 1 });
            return None;
        };
        link.names_left -= 1;
        if link.names_left > 0 {
            return Some(link.first.clone());
        }
        self.links.remove(&id).map(|link| link.first)
    }

    fn add_symlink(&mut self, mut header: Header, name: &Path, target: &Path) -> io::Result<()> {
        // As it is if it fits: `append_link` would tidy up a target like `a//b`.
        match header.set_link_name_literal(target.as_os_str().as_encoded_bytes()) {
            Ok(()) => self.tar.append_data(&mut header, name, io::empty()),
            Err(_) => self.tar.append_link(&mut header, name, target),
        }
    }

    #[cfg(unix)]
    fn add_special(&mut self, path: &Path, name: &Path, meta: &Metadata) -> io::Result<()> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};

        if meta.file_type().is_socket() {
            let _ = self.skipped.send(path.display().to_string());
            return Ok(());
        }
        // A fifo or a device: its header says it all, and opening it could block.
        let mut header = header(meta);
        header.set_size(0);
        header.set_device_major(rustix::fs::major(meta.rdev()))?;
        header.set_device_minor(rustix::fs::minor(meta.rdev()))?;
        self.tar.append_data(&mut header, name, io::empty())
    }

    #[cfg(not(unix))]
    fn add_special(&mut self, path: &Path, _: &Path, _: &Metadata) -> io::Result<()> {
        let _ = self.skipped.send(path.display().to_string());
        Ok(())
    }
}

/// The builder keeps the start of a long name that is UTF-8 in the header, and fails where there is
/// no such start; so here it gets one.
fn name_in_tar(name: &Path) -> Cow<'_, Path> {
    if name.to_str().is_some() { Cow::Borrowed(name) } else { Cow::Owned(Path::new(".").join(name)) }
}

fn header(meta: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(meta);
    if meta.modified().is_ok_and(|time| time < UNIX_EPOCH) {
        header.set_mtime(0);
    }
    header
}

#[cfg(unix)]
fn file_id(meta: &Metadata) -> Option<(FileId, u64)> {
    use std::os::unix::fs::MetadataExt;
    (!meta.is_dir()).then(|| ((meta.dev(), meta.ino()), meta.nlink()))
}

#[cfg(not(unix))]
fn file_id(_: &Metadata) -> Option<(FileId, u64)> {
    None
}

/// A file that must have as many bytes as its header says: one more or less, and all that follows
/// in the tar would be taken for something else.
struct Unchanging<'a> {
    path: &'a Path,
    file: File,
    size: u64,
    read: u64,
}

impl<'a> Unchanging<'a> {
    fn open(path: &'a Path, meta: &Metadata) -> Result<Self, Fault> {
        let mut options = OpenOptions::new();
        options.read(true);
        // If it has become a fifo or a link since: do not wait for its writer, do not follow it.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            &mut options,
            (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed(),
        );
        let opened = options.open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (now, file) = opened.map_err(|e| Fault::new(path, "cannot open", e))?;
        let id = |meta| file_id(meta).map(|(id, _)| id);
        if !now.is_file() || id(&now) != id(meta) {
            return Err(Fault::new(path, "cannot pack", "it was replaced meanwhile"));
        }
        Ok(Self { path, file, size: meta.len(), read: 0 })
    }

    fn changed(&self, how: &str) -> Fault {
        let was = format!("it {how} while it was packed, or its size of {} is not true", self.size);
        Fault::at(self.path, "cannot pack", self.read, was)
    }
}

impl Read for Unchanging<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.size - self.read;
        let mut beyond = [0];
        let want = if left == 0 {
            &mut beyond[..]
        } else {
            let len = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
            &mut buf[..len]
        };
        match self.file.read(want) {
            Ok(0) if left > 0 => Err(self.changed("shrank").into()),
            Ok(0) => Ok(0),
            Ok(_) if left == 0 => Err(self.changed("grew").into()),
            Ok(n) => {
                self.read += n as u64;
                Ok(n)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => Err(Fault::at(self.path, "cannot read", self.read, e).into()),
        }
    }
}
