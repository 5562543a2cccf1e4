//! The command line of the example `tar_stream`: what it proves, and what it says of bad input.
#![cfg(unix)]

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;
use tar::{Archive, Builder, EntryType, Header};
use tempfile::{TempDir, tempdir};

const BLOCK: usize = 512;

// ---- What goes right ----

#[test]
fn a_generated_context_comes_out_as_it_went_in() {
    let report = success(&["--size", "1MiB", "--stall", "0s", "--json"]);
    assert!(report["bytes_in"].as_u64().unwrap() >= 1 << 20);
    assert!(report["entries"].as_u64().unwrap() > 10);
}

#[test]
fn the_json_object_has_every_field() {
    let report = success(&["--size", "64KiB", "--stall", "0s", "--json"]);
    for number in [
        "entries",
        "bytes_in",
        "bytes_out",
        "seconds",
        "spilled",
        "peak_on_disk",
        "disk_at_end",
        "writer_waited_seconds",
    ] {
        assert!(report[number].is_number(), "{number} in {report}");
    }
    for digest in ["sha256_in", "sha256_out"] {
        assert_eq!(report[digest].as_str().unwrap().len(), 64, "{digest} in {report}");
    }
    let rss = &report["peak_rss_kib"];
    assert!(rss.is_u64() || rss.is_null() && !cfg!(target_os = "linux"), "{report}");
    assert_eq!(report["disk_at_end"], 0);
}

#[test]
fn without_json_the_report_is_for_people() {
    let output = run(&["--size", "64KiB", "--stall", "0s"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("the same") && text.contains("sha256"), "{text}");
    assert!(output.stderr.is_empty(), "no bars where there is no terminal");
}

#[test]
fn a_directory_keeps_modes_times_links_and_every_kind_of_name() {
    let dir = tempdir().unwrap();
    let tree = dir.path().join("tree");
    let names = plant(&tree);
    let out = dir.path().join("out.tar");
    let report = success(&[text(&tree), "--json", "--output", text(&out)]);
    assert_eq!(report["bytes_out"], fs::metadata(&out).unwrap().len());
    assert_eq!(report["entries"], names.count_in_tar);

    let entries = list(&out);
    let entry = |name: &[u8]| {
        let found = entries.iter().find(|entry| entry.name == name);
        found.unwrap_or_else(|| panic!("no {:?} in {entries:?}", String::from_utf8_lossy(name)))
    };
    assert_eq!((entry(b"run.sh").kind, entry(b"run.sh").mode & 0o7777), (EntryType::Regular, 0o4751));
    assert_eq!(entry(b"run.sh").mtime, 1_000_000_000);
    assert_eq!((entry(b"empty/").kind, entry(b"empty/").mode & 0o7777), (EntryType::Directory, 0o1701));
    assert_eq!((entry(b"dangling").kind, &*entry(b"dangling").link), (EntryType::Symlink, &b"no//where"[..]));
    assert_eq!(entry(b"far").link, names.far_target.as_bytes());
    // In sorted order the first of the three names has the content, the others link to it.
    assert_eq!((entry(b"hard-1").kind, &*entry(b"hard-1").content), (EntryType::Regular, &b"one file"[..]));
    for other in [&b"hard-2"[..], b"zz/hard-3"] {
        assert_eq!((entry(other).kind, &*entry(other).link), (EntryType::Link, &b"hard-1"[..]));
    }
    assert_eq!(entry(&names.long).content, b"long");
    assert_eq!(entry("größe/日本.txt".as_bytes()).content, b"unicode");
    assert_eq!(entry(b"latin-\xe9").content, b"latin 1");
    assert_eq!(entry(&[b"./", &[0xff; 200][..]].concat()).content, b"no text at all");
    assert_eq!(entry(b"fifo").kind, EntryType::Fifo);
}

#[test]
fn the_systems_tar_unpacks_a_directory_to_the_same_tree() {
    let dir = tempdir().unwrap();
    let (tree, out, back) = (dir.path().join("tree"), dir.path().join("out.tar"), dir.path().join("back"));
    plant(&tree);
    success(&[text(&tree), "--json", "--output", text(&out)]);
    fs::create_dir(&back).unwrap();
    system(Command::new("tar").arg("-xpf").arg(&out).arg("-C").arg(&back));
    assert_eq!(fs::read_link(back.join("far")).unwrap(), fs::read_link(tree.join("far")).unwrap());
    fs::remove_file(tree.join("socket")).unwrap();
    for special in ["fifo", "dangling", "far"] {
        fs::remove_file(tree.join(special)).unwrap();
        fs::remove_file(back.join(special)).unwrap();
    }
    system(Command::new("diff").arg("-r").arg(&tree).arg(&back));
}

#[test]
fn a_socket_is_left_out_with_a_warning() {
    let dir = tempdir().unwrap();
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let output = run(&[text(dir.path()), "--json"]);
    assert!(output.status.success());
    let warning = String::from_utf8(output.stderr).unwrap();
    assert_eq!(warning, format!("tar_stream: {}: a socket, left out\n", socket.display()));
    assert_eq!(json(&output.stdout)["skipped"], 1);
}

#[test]
fn two_runs_over_a_directory_give_the_same_tar() {
    let dir = tempdir().unwrap();
    plant(&dir.path().join("tree"));
    let [one, two] = [0, 1].map(|_| success(&[text(dir.path()), "--json"]));
    assert_eq!(one["sha256_out"], two["sha256_out"]);
}

#[test]
fn a_tar_gz_of_the_systems_tar_comes_out_unpacked() {
    let dir = tempdir().unwrap();
    let (tree, gz) = (dir.path().join("tree"), dir.path().join("tree.tar.gz"));
    let names = plant(&tree);
    let packed = Command::new("tar").arg("-czf").arg(&gz).arg("-C").arg(&tree).arg(".").output().unwrap();
    assert!(packed.status.success());
    let report = success(&[text(&gz), "--json"]);
    assert_eq!(report["entries"], names.count_in_tar);
    assert!(report["bytes_in"].as_u64().unwrap() > fs::metadata(&gz).unwrap().len());
}

#[test]
fn a_dash_reads_a_tar_from_standard_input_compressed_or_not() {
    let tar = small_tar();
    for input in [&tar, &gzip(&tar)] {
        let output = run_with(&["-", "--json"], input);
        let report = json(&output.stdout);
        assert_eq!((&report["match"], &report["bytes_out"]), (&true.into(), &tar.len().into()));
    }
}

#[test]
fn the_padding_after_the_end_of_the_archive_comes_out_too() {
    let mut tar = small_tar();
    tar.extend([0; 20 * BLOCK]);
    let report = success_of(&tar);
    assert_eq!(report["bytes_out"], tar.len());
}

#[test]
fn a_writer_that_meets_a_full_disk_limit_waits_for_the_stalled_consumer() {
    let limits = ["--memory", "256KiB", "--disk", "512KiB", "--stall", "200ms"];
    let report = success(&[&limits[..], &["--size", "3MiB", "--json"]].concat());
    assert!(report["writer_waited_seconds"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn a_consumer_keeps_to_its_rate() {
    let report = success(&["--size", "256KiB", "--stall", "0s", "--rate", "1MiB", "--json"]);
    assert!(report["seconds"].as_f64().unwrap() > 0.2, "{report}");
}

#[test]
fn a_comparison_has_one_line_for_each_queue_and_one_digest_in_both() {
    let output = run(&["--compare", "memory", "--size", "256KiB", "--stall", "0s"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let digest = |name| text.lines().find(|line| line.starts_with(name)).unwrap().rsplit(' ').next().unwrap();
    assert_eq!(digest("spillbuffer"), digest("memory queue"));
}

// ---- What goes wrong ----

#[test]
fn a_missing_path_is_named() {
    failure(&["/no/such/context"], &["/no/such/context"]);
}

#[test]
fn a_file_that_is_no_tar_is_named_with_the_offset() {
    bad_file(&b"just some text, and not a tar at all\n".repeat(100), "no header at byte 0");
    bad_file(b"short", "at byte 5");
}

#[test]
fn an_empty_file_is_no_tar() {
    bad_file(b"", "at byte 0");
}

#[test]
fn a_compressed_file_that_is_no_tar_is_no_tar() {
    bad_file(&gzip(&[b'x'; 4096]), "no header at byte 0");
}

#[test]
fn a_tar_cut_in_the_middle_of_a_header_names_the_offset() {
    bad_file(&small_tar()[..100], "at byte 100");
    bad_file(&small_tar()[..3 * BLOCK + 300], "at byte 1836");
}

#[test]
fn a_tar_cut_in_the_middle_of_an_entry_names_the_offset() {
    bad_file(&small_tar()[..BLOCK + 700], "at byte 1212");
}

#[test]
fn a_tar_cut_between_two_entries_is_not_taken_for_a_whole_one() {
    bad_file(&small_tar()[..3 * BLOCK], "at byte 1536");
}

#[test]
fn a_tar_cut_in_its_end_marker_is_not_taken_for_a_whole_one() {
    let tar = small_tar();
    let end = tar.len() - 2 * BLOCK;
    bad_file(&tar[..end], &format!("at byte {end}"));
    bad_file(&tar[..end + BLOCK], &format!("at byte {}", end + BLOCK));
}

#[test]
fn garbage_after_valid_entries_names_the_offset() {
    let tar = small_tar();
    let end = tar.len() - 2 * BLOCK;
    let garbage = b"\x1b[2Jgarbage\n".repeat(100);
    bad_file(&[&tar[..end], &garbage].concat(), &format!("at byte {end}"));
    bad_file(&[&tar[..], &garbage].concat(), &format!("at byte {}", tar.len()));
}

#[test]
fn a_corrupt_gzip_names_the_offset_in_the_compressed_file() {
    let mut gz = gzip(&noise_tar());
    let middle = gz.len() / 2;
    gz[middle..].fill(0xff);
    let sentence = bad_file(&gz, "the gzip is corrupt at byte ");
    assert!(offset_in(&sentence) >= middle as u64, "{sentence}");
}

#[test]
fn a_gzip_with_a_wrong_checksum_fails_although_its_tar_is_whole() {
    let mut gz = gzip(&small_tar());
    let checksum = gz.len() - 8;
    gz[checksum] ^= 1;
    bad_file(&gz, &format!("the gzip is corrupt at byte {}", gz.len()));
}

#[test]
fn a_cut_gzip_names_the_offset_in_the_compressed_file() {
    let gz = gzip(&noise_tar());
    bad_file(&gz[..gz.len() / 2], &format!("the gzip is cut short at byte {}", gz.len() / 2));
}

#[test]
fn an_unreadable_file_in_a_directory_is_named() {
    let dir = tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let (tree, program) = (dir.path().join("tree"), dir.path().join("tar_stream"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("before"), "is packed").unwrap();
    let secret = tree.join("secret");
    fs::write(&secret, "is not").unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o000)).unwrap();

    let mut command = Command::new(example());
    if File::open(&secret).is_ok() {
        // Root, who may read everything; so let somebody else try, who may not look into `target`.
        fs::copy(example(), &program).unwrap();
        command = Command::new(program);
        command.uid(65534).gid(65534);
    }
    let output = command.args([text(&tree), "--json"]).output().unwrap();
    one_sentence(&output, &[text(&secret), "denied"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_read_that_fails_names_path_and_offset() {
    failure(&["/proc/self/mem"], &["/proc/self/mem: cannot read at byte 0"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_in_a_directory_that_has_more_bytes_than_its_size_is_named() {
    failure(&["/proc/sys/kernel/random"], &["/proc/sys/kernel/random/boot_id", "at byte 0", "grew"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_in_a_directory_that_has_fewer_bytes_than_its_size_is_named() {
    let loopback = "/sys/class/net/lo";
    if Path::new(loopback).exists() {
        failure(&[loopback], &[loopback, "shrank"]);
    } else {
        eprintln!("not tested: no {loopback} here");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_producer_that_fails_leaves_no_archive_that_looks_complete() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out.tar");
    failure(&["/proc/sys/kernel/random", "--output", text(&out)], &["boot_id"]);
    let came_out = fs::read(&out).unwrap();
    // The directory and the header of the file that failed, but not the end-of-archive marker.
    assert_eq!(came_out.len(), 2 * BLOCK);
    assert_eq!(came_out[BLOCK..][..7], *b"boot_id");
}

#[test]
fn standard_input_has_a_name_too() {
    let output = run_with(&["-", "--json"], b"no tar");
    one_sentence(&output, &["standard input", "at byte 6"]);
}

#[test]
fn a_comparison_says_which_run_failed() {
    let output = run(&["--compare", "memory", "/no/such/context"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{text}");
    assert!(text.contains("/no/such/context") && text.contains("--through=spillbuffer failed"), "{text}");
}

#[test]
fn a_wrong_command_line_has_a_status_of_its_own() {
    for arguments in [
        &["--rate", "fast"][..],
        &["--rate", "0"],
        &["--stall", "long"],
        &["--memory", "-1"],
        &["--compare", "disk"],
        &["--compare", "memory", "-"],
        &["one", "two"],
        &["--no-such-option"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
    }
}

// ---- The example ----

/// The program, which cargo builds along with the tests; but not if it was told to build only them.
fn example() -> &'static Path {
    static EXAMPLE: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let path = profile.join("examples").join("tar_stream");
        if !path.exists() {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--example", "tar_stream"]);
            cargo.arg("--target-dir").arg(profile.parent().unwrap());
            if profile.ends_with("release") {
                cargo.arg("--release");
            }
            system(&mut cargo);
        }
        assert!(path.exists(), "{} is missing: cargo build --example tar_stream", path.display());
        path
    })
}

fn run(arguments: &[&str]) -> Output {
    Command::new(example()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn run_with(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(example());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Small enough for a pipe, and so it is all written before the child's output is read.
    assert!(input.len() <= 64 * 1024);
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn system(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs the example, which must print a report that says: the same.
fn success(arguments: &[&str]) -> Value {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let report = json(&output.stdout);
    assert_eq!(report["match"], true, "{report}");
    assert_eq!(report["sha256_in"], report["sha256_out"]);
    assert_eq!(report["bytes_in"], report["bytes_out"]);
    report
}

fn success_of(content: &[u8]) -> Value {
    let dir = tempdir().unwrap();
    success(&[text(&file(&dir, content)), "--json"])
}

/// Runs the example, which must say one sentence with all of `parts` and report nothing. What is
/// wrong must be found through either queue.
fn failure(arguments: &[&str], parts: &[&str]) -> String {
    let memory = run(&[arguments, &["--json", "--through=memory"]].concat());
    let output = run(&[arguments, &["--json"]].concat());
    assert_eq!(one_sentence(&memory, parts), one_sentence(&output, parts));
    one_sentence(&output, parts)
}

fn one_sentence(output: &Output, parts: &[&str]) -> String {
    let sentence = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{sentence}");
    assert!(output.stdout.is_empty(), "a report after a failure");
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
    assert!(sentence.starts_with("tar_stream: "), "{sentence}");
    assert!(!sentence.trim_end().contains(char::is_control), "{sentence:?}");
    for part in parts {
        assert!(sentence.contains(part), "no {part:?} in {sentence:?}");
    }
    sentence
}

/// Streams a file with this content, which must fail with a sentence that has its path and `part`.
fn bad_file(content: &[u8], part: &str) -> String {
    let dir = tempdir().unwrap();
    let path = file(&dir, content);
    failure(&[text(&path)], &[&format!("{}: ", path.display()), part])
}

fn offset_in(sentence: &str) -> u64 {
    let after = sentence.split("at byte ").nth(1).unwrap();
    after.split(':').next().unwrap().parse().unwrap()
}

fn json(stdout: &[u8]) -> Value {
    serde_json::from_slice(stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(stdout)))
}

// ---- What it is given ----

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn file(dir: &TempDir, content: &[u8]) -> PathBuf {
    let path = dir.path().join("context.tar");
    fs::write(&path, content).unwrap();
    path
}

/// Header, 1000 bytes in two blocks, header, 10 bytes in one block, end.
fn small_tar() -> Vec<u8> {
    tar_of(&[("one", &[b'1'; 1000]), ("two", &[b'2'; 10])])
}

/// What a gzip cannot make small.
fn noise_tar() -> Vec<u8> {
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    tar_of(&[("noise", &noise.take(100_000).collect::<Vec<_>>())])
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

struct Planted {
    /// A name of more than 255 bytes.
    long: Vec<u8>,
    /// A link target of more than 100 bytes.
    far_target: String,
    count_in_tar: u64,
}

/// Makes a tree with one of everything.
fn plant(tree: &Path) -> Planted {
    let put = |name: &Path, content: &str| {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let long = Path::new(&"d".repeat(150)).join("e".repeat(150)).join("f".repeat(120));
    let far_target = format!("../{}", "far/".repeat(50));
    put(Path::new("run.sh"), "#!/bin/sh\n");
    let script = File::options().write(true).open(tree.join("run.sh")).unwrap();
    let when = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    script.set_modified(when).unwrap();
    fs::set_permissions(tree.join("run.sh"), Permissions::from_mode(0o4751)).unwrap();
    fs::create_dir(tree.join("empty")).unwrap();
    fs::set_permissions(tree.join("empty"), Permissions::from_mode(0o1701)).unwrap();
    symlink("no//where", tree.join("dangling")).unwrap();
    symlink(&far_target, tree.join("far")).unwrap();
    put(Path::new("hard-1"), "one file");
    fs::hard_link(tree.join("hard-1"), tree.join("hard-2")).unwrap();
    fs::create_dir(tree.join("zz")).unwrap();
    fs::hard_link(tree.join("hard-1"), tree.join("zz/hard-3")).unwrap();
    put(&long, "long");
    put(Path::new("größe/日本.txt"), "unicode");
    put(Path::new(std::ffi::OsStr::from_bytes(b"latin-\xe9")), "latin 1");
    put(Path::new(std::ffi::OsStr::from_bytes(&[0xff; 200])), "no text at all");
    system(Command::new("mkfifo").arg(tree.join("fifo")));
    drop(UnixListener::bind(tree.join("socket")).unwrap());
    // The root, run.sh, empty/, two symbolic links, three hard ones, zz/, the long name with its
    // two directories, größe/ and the file in it, latin, the one that is no text, the fifo; but not the socket.
    Planted { long: long.as_os_str().as_bytes().to_vec(), far_target, count_in_tar: 17 }
}

#[derive(Debug)]
struct Listed {
    name: Vec<u8>,
    kind: EntryType,
    mode: u32,
    mtime: u64,
    link: Vec<u8>,
    content: Vec<u8>,
}

fn list(path: &Path) -> Vec<Listed> {
    let mut archive = Archive::new(File::open(path).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::copy(&mut entry, &mut content).unwrap();
        Listed {
            name: entry.path_bytes().into_owned(),
            kind: entry.header().entry_type(),
            mode: entry.header().mode().unwrap(),
            mtime: entry.header().mtime().unwrap(),
            link: entry.link_name_bytes().unwrap_or_default().into_owned(),
            content,
        }
    });
    entries.collect()
}
