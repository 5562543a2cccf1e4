//! Imports point down only: this reads the sources and refuses a path that points up or out.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each module of the crate, with what it may name. A path that is written out counts like an import.
const LAYERS: &[(&str, &[&str])] = &[
    // plain values
    ("error", &[]),
    ("stats", &[]),
    ("slot", &[]),
    ("copy", &[]),
    ("block", &["copy", "slot"]),
    ("sync", &[]),
    ("clock", &["sync"]),
    ("lender", &[]),
    ("options", &["error", "slot"]),
    ("threads", &["options", "sync"]),
    // core and storage do not know each other
    ("core", &["block", "error", "lender", "options", "slot", "stats"]),
    ("storage", &["block", "error", "options", "slot", "sync"]),
    ("pool", &["block", "clock", "error", "lender", "options", "slot", "stats", "storage", "sync", "threads"]),
    (
        "shell",
        &[
            "block", "clock", "copy", "core", "error", "lender", "options", "pool", "stats", "storage", "sync",
            "threads",
        ],
    ),
    // transforms, which know nothing of buffers
    ("within", &[]),
    ("chunk", &[]),
    ("source", &["copy", "within"]),
    ("drain", &["chunk", "within"]),
    ("transform", &["chunk", "copy", "drain", "error", "source", "within"]),
    // public handles
    ("turn", &["block"]),
    ("control", &["error", "shell", "stats"]),
    ("writer", &["blocking", "control", "error", "shell", "sink", "stats", "turn"]),
    ("reader", &["blocking", "control", "copy", "error", "shell", "stats", "stream", "turn"]),
    ("sink", &["error", "turn", "writer"]),
    ("stream", &["error", "reader"]),
    ("blocking", &["control", "copy", "error", "reader", "shell", "stats", "sync", "writer"]),
    ("buffer", &["builder", "control", "options", "reader", "shell", "stats", "sync", "writer"]),
    ("builder", &["buffer", "error", "options", "pool", "shell"]),
    (
        "pipeline",
        &[
            "buffer",
            "chunk",
            "clock",
            "control",
            "copy",
            "drain",
            "error",
            "reader",
            "source",
            "transform",
            "within",
            "writer",
        ],
    ),
    ("spill_pool", &["buffer", "builder", "error", "options", "pool", "storage"]),
];

/// What only some may name of the world outside. A name with a slash is one file of a module.
const OUTSIDE: &[(&str, &[&str])] = &[
    (
        "tokio",
        &[
            "writer",
            "reader",
            "sink",
            "turn",
            "buffer",
            "source",
            "drain",
            "transform/reader",
            "transform/writer",
            "transform/clock",
            "pipeline",
        ],
    ),
    ("futures_core", &["stream", "pipeline", "source", "transform/reader", "transform/stream"]),
    ("futures_sink", &["sink", "pipeline", "drain", "transform/writer", "transform/sink"]),
    ("rustix", &["storage"]),
    ("nix", &["threads"]),
    ("tempfile", &["storage"]),
    ("crc_fast", &["block", "storage"]),
    ("aws_lc_rs", &["storage/cipher"]),
    ("zeroize", &["storage/cipher"]),
    ("digest", &["transform/digest", "transform/mod"]),
    ("compression_codecs", &["transform/compression"]),
    ("std::fs", &["storage"]),
    ("sync::thread", &["threads", "clock", "blocking"]),
    ("std::thread", &["sync", "pipeline/settle"]),
    // Where threads meet, they do so through `sync`, or shuttle would not see it. Elsewhere this is shares of things, and
    // what nobody waits in for long.
    (
        "std::sync",
        &[
            "sync",
            "block",
            "core",
            "error",
            "lender",
            "buffer",
            "builder",
            "spill_pool",
            "control",
            "reader",
            "writer",
            "drain",
            "source",
            "transform",
            "pipeline",
        ],
    ),
    ("std::time", &["sync", "clock", "threads", "shell", "stats", "transform", "pipeline"]),
    (
        "std::task",
        &[
            "shell",
            "writer",
            "reader",
            "sink",
            "turn",
            "stream",
            "blocking",
            "buffer",
            "source",
            "drain",
            "transform/clock",
            "transform/peek",
            "transform/reader",
            "transform/sink",
            "transform/stream",
            "transform/writer",
            "pipeline",
            "control",
        ],
    ),
    ("std::net", &[]),
    ("std::env", &["storage", "pool"]),
];

#[test]
fn imports_point_down_only() {
    let mut wrong = Vec::new();
    for (path, module) in sources() {
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: a module that has no layer", path.display()));
            continue;
        };
        let code = code_of(&path);
        for named in named_after(&code, "crate::") {
            // A name that begins with a capital is a re-export at the top: that points up as well.
            let top = named.starts_with(char::is_uppercase);
            if top || (named != module && !allowed.contains(&&*named)) {
                wrong.push(format!("{}: {module} names {named}", path.display()));
            }
        }
        for (outside, by) in OUTSIDE {
            if !by.iter().any(|by| *by == module || *by == place_of(&path)) && names(&code, outside) {
                wrong.push(format!("{}: {module} names {outside}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_knows_no_lock_no_clock_and_nothing_above_it() {
    for (path, _) in sources().into_iter().filter(|(_, module)| module == "core") {
        let code = code_of(&path);
        for word in ["Mutex", "RwLock", "Condvar", "Atomic", "Instant", "Waker", "Context", "async ", "super::super"] {
            assert!(!code.contains(word), "{} names {word}", path.display());
        }
    }
}

#[test]
fn a_transform_waits_for_nothing() {
    let shells = ["mod", "clock", "reader", "stream", "writer", "sink"].map(|file| format!("transform/{file}"));
    for (path, module) in sources() {
        if module == "transform" && !shells.contains(&place_of(&path)) {
            for word in ["async ", "Instant::now()", ".await", "fs::", "thread::"] {
                assert!(!code_of(&path).contains(word), "{} names {word}", path.display());
            }
        }
    }
}

#[test]
fn there_is_unsafe_code_in_one_small_file() {
    for (path, _) in sources() {
        let code = code_of(&path);
        if path.ends_with("copy/streaming.rs") {
            assert!(code.contains("unsafe ") && code.lines().count() < 100, "{}", path.display());
        } else {
            assert!(!code.contains("unsafe "), "{}", path.display());
        }
    }
}

#[test]
fn this_test_would_see_what_it_refuses() {
    let code = "use crate::{\n    block::Block,\n    core::{Core, a::B},\n};\nfn f() { crate::pool::Pool::new(); tokio::spawn(x) }";
    assert_eq!(named_after(code, "crate::"), ["block", "core", "pool"].map(String::from).into());
    assert!(names(code, "tokio") && !names("use notokio::x;", "tokio") && !names(code, "std::fs"));
    assert!(names("use std::{\n    fmt,\n    fs::File,\n};", "std::fs"));
}

/// Every source file but tests and what only tests and shuttle use, with the module of the crate that it is in.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.extend(Some(path).filter(|_| name != "pool_tests" && name != "tests"));
            } else if ![
                "lib.rs",
                "tests.rs",
                "prefetched.rs",
                "sealed.rs",
                "stories.rs",
                "model.rs",
                "herd.rs",
                "faulty.rs",
                "hooked.rs",
                "fuzzing.rs",
                "interleavings.rs",
                "shuttled.rs",
                "toy_cipher.rs",
            ]
            .contains(&&*name)
            {
                let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
                let module = first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_string();
                found.push((path, module));
            }
        }
    }
    assert!(found.len() > 20);
    found
}

/// The module and the file or folder in it: `transform/reader`.
fn place_of(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let within = path.strip_prefix(&root).unwrap().with_extension("");
    within.components().take(2).map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// The code of a file, without comments and without its unit tests.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The first names behind `prefix`, also where they stand in braces.
fn named_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(name_at(rest));
            continue;
        };
        let (mut depth, mut first) = (0, true);
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => first = true,
                c if first && depth == 0 && !c.is_whitespace() => {
                    found.insert(name_at(&group[i..]));
                    first = false;
                }
                _ => {}
            }
        }
    }
    found
}

fn name_at(code: &str) -> String {
    code.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Whether the code names this crate, or this module of std.
fn names(code: &str, path: &str) -> bool {
    match path.split_once("::") {
        Some((krate, module)) => named_after(code, &format!("{krate}::")).contains(module),
        None => code
            .match_indices(&format!("{path}::"))
            .any(|(at, _)| !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')),
    }
}
