//! The rules of the house, as a test: who may use whom, how long things may be, where `unsafe` may stand.
//!
//! Sources are read as text, line by line. That is honest because of how they are written: stock `rustfmt`, one path
//! in each `use`, no `crate::{…}` groups.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Each module and what it may use; a path with `::` allows that part alone.
const MAY_USE: &[(&str, &[&str])] = &[
    ("defence", &[]),
    ("capng", &[]),
    ("sys", &[]),
    ("spec", &[]),
    ("host", &["sys"]),
    ("plan", &["spec", "host"]),
    ("init", &["plan::step", "plan::accounts", "sys"]),
    ("image", &["sys"]),
    ("guest", &["sys"]),
    ("network", &["plan::network", "sys"]),
    ("enclosure", &["plan", "sys"]),
    // What is said to a guest is of neither side: the machine's backend speaks it, and the agent does.
    (
        "backend",
        &[
            "plan",
            "init",
            "network::NetworkError",
            "network::tap",
            "enclosure",
            "agent::wire",
            "agent::client",
            "sys",
        ],
    ),
    // It is a runtime inside: a container is made in the guest by the code that makes one on the host.
    ("agent", &["plan", "init", "backend", "sys"]),
    // The second binary is the agent and nothing else.
    ("bin", &["agent"]),
    (
        "workspace",
        &[
            "spec",
            "plan",
            "host",
            "image",
            "guest",
            "network",
            "enclosure",
            "backend",
            "sys",
        ],
    ),
    (
        "accounting",
        &[
            "spec",
            "plan",
            "host",
            "network",
            "enclosure",
            "workspace",
            "sys",
        ],
    ),
    (
        "monitor",
        &[
            "spec",
            "plan",
            "enclosure",
            "workspace",
            "accounting",
            "sys",
        ],
    ),
    (
        "cli",
        &[
            "spec",
            "plan",
            "host",
            "image",
            "guest",
            "network",
            "enclosure",
            "backend",
            "workspace",
            "accounting",
            "monitor",
            "sys",
        ],
    ),
];

/// What every module may use: the names of defences, which lean on nothing.
const EVERYWHERE: &str = "defence";

const LONGEST_FILE: usize = 600;
const LONGEST_FUNCTION: usize = 60;

/// A source file: where it is, and its lines.
struct Source {
    path: PathBuf,
    lines: Vec<String>,
}

impl Source {
    /// The top module that the file belongs to; none for `lib.rs` and `main.rs`.
    fn module(&self) -> Option<String> {
        let mut parts = self.path.strip_prefix("src").ok()?.iter();
        let first = parts.next()?.to_str()?.trim_end_matches(".rs");
        (first != "lib" && first != "main").then(|| first.to_owned())
    }

    /// The module itself, as a path below the crate: `plan::mounts`.
    fn module_path(&self) -> Vec<String> {
        let inside = self.path.strip_prefix("src").unwrap().with_extension("");
        let parts = inside.iter().map(|part| part.to_str().unwrap().to_owned());
        parts.filter(|part| part != "mod").collect()
    }

    /// Lines that are not comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.lines.iter().enumerate();
        lines
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.starts_with("//"))
    }

    fn at(&self, number: usize) -> String {
        format!("{}:{number}", self.path.display())
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open = vec![home.join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source {
                    path: path.strip_prefix(home).unwrap().to_owned(),
                    lines: text.lines().map(str::to_owned).collect(),
                });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// The paths behind each `crate::` in a line.
fn crate_paths(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|letter: char| !letter.is_alphanumeric() && !"_:".contains(letter));
        &rest[..end.unwrap_or(rest.len())]
    })
}

fn is_below(path: &str, allowed: &str) -> bool {
    path == allowed
        || path
            .strip_prefix(allowed)
            .is_some_and(|rest| rest.starts_with("::"))
}

fn may_use(module: &str, path: &str) -> bool {
    let (_, allowed) = MAY_USE.iter().find(|(name, _)| *name == module).unwrap();
    let common = module != EVERYWHERE && is_below(path, EVERYWHERE);
    is_below(path, module) || common || allowed.iter().any(|allowed| is_below(path, allowed))
}

#[test]
fn modules_look_only_down() {
    let mut wrong = BTreeSet::new();
    for source in sources("src") {
        let Some(module) = source.module() else {
            continue;
        };
        for (number, line) in source.code() {
            let paths = crate_paths(line).filter(|path| !may_use(&module, path));
            wrong.extend(paths.map(|path| format!("{module} uses {path} ({})", source.at(number))));
        }
    }
    assert_eq!(wrong, BTreeSet::new());
}

#[test]
fn every_module_has_its_layer() {
    let known: BTreeSet<String> = MAY_USE.iter().map(|(name, _)| (*name).to_owned()).collect();
    let present: BTreeSet<String> = sources("src").iter().filter_map(Source::module).collect();
    assert_eq!(present, known);
}

/// What a `use` line of a module names, as a path below the crate.
fn used_path(module: &[String], line: &str) -> Option<Vec<String>> {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let path = line.strip_prefix("use ")?.trim_end_matches(';');
    let (root, rest) = path.split_once("::")?;
    let mut full = match root {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len() - 1].to_vec(),
        _ => return None,
    };
    full.extend(rest.split("::").map(str::to_owned));
    Some(full)
}

#[test]
fn no_two_parts_of_a_module_use_each_other() {
    let mut uses: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for source in sources("src") {
        let module = source.module_path();
        let [top, part, ..] = module.as_slice() else {
            continue;
        };
        let used = source
            .code()
            .filter_map(|(_, line)| used_path(&module, line));
        let siblings = used.filter(|path| path.len() > 2 && path[0] == *top && path[1] != *part);
        let names = siblings.map(|path| path[1].clone());
        uses.entry((top.clone(), part.clone()))
            .or_default()
            .extend(names);
    }
    let mut wrong = Vec::new();
    for ((top, part), others) in &uses {
        let back = |other: &&String| {
            let theirs = uses.get(&(top.clone(), (*other).clone()));
            *other > part && theirs.is_some_and(|theirs| theirs.contains(part))
        };
        let circles = others.iter().filter(back);
        wrong.extend(circles.map(|other| format!("{top}::{part} and {top}::{other}")));
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_file_says_first_why_it_exists() {
    let all = sources("src").into_iter().chain(sources("tests"));
    let silent = all.filter(|source| {
        !source
            .lines
            .first()
            .is_some_and(|line| line.starts_with("//! "))
    });
    let silent: Vec<PathBuf> = silent.map(|source| source.path).collect();
    assert_eq!(silent, Vec::<PathBuf>::new());
}

#[test]
fn no_file_is_too_long_to_be_read_at_once() {
    let all = sources("src").into_iter().chain(sources("tests"));
    let long = all.filter(|source| source.lines.len() > LONGEST_FILE);
    let long: Vec<_> = long
        .map(|source| (source.path, source.lines.len()))
        .collect();
    assert_eq!(long, []);
}

/// Whether a line begins a function.
fn begins_function(line: &str) -> bool {
    let line = line.trim_start();
    if line.starts_with("//") || line.ends_with(';') {
        return false;
    }
    let mut words = line.split([' ', '(']);
    let before = ["pub", "const", "async", "unsafe", "extern", "\"C\""];
    let visible = ["crate)", "super)", "in"];
    words.find(|word| !before.contains(word) && !visible.contains(word)) == Some("fn")
}

/// Functions with their first lines and lengths: `rustfmt` puts the last brace where the first word began.
fn functions(source: &Source) -> Vec<(usize, usize)> {
    let lines = source.lines.iter().enumerate();
    let firsts = lines.filter(|(_, line)| begins_function(line));
    firsts
        .filter_map(|(first, line)| {
            let indent = &line[..line.len() - line.trim_start().len()];
            let end = format!("{indent}}}");
            let length = source.lines[first..].iter().position(|line| *line == end)? + 1;
            Some((first + 1, length))
        })
        .collect()
}

#[test]
fn no_function_is_too_long_to_be_seen_at_once() {
    let all = sources("src").into_iter().chain(sources("tests"));
    let mut long = Vec::new();
    for source in all {
        let functions = functions(&source).into_iter();
        let functions = functions.filter(|(_, length)| *length > LONGEST_FUNCTION);
        long.extend(functions.map(|(line, length)| (source.at(line), length)));
    }
    assert_eq!(long, []);
}

#[test]
fn functions_are_found_and_measured() {
    let text = [
        "impl A {",
        "    pub(super) const fn b(",
        "    ) {",
        "        if c {",
        "        }",
        "    }",
        "}",
    ];
    let source = Source {
        path: PathBuf::from("src/a.rs"),
        lines: text.map(str::to_owned).to_vec(),
    };
    assert_eq!(functions(&source), [(2, 5)]);
}

/// Whether a word stands in a line by itself and not as a part of another.
fn has_word(line: &str, word: &str) -> bool {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .any(|one| one == word)
}

#[test]
fn unsafe_stands_in_sys_alone() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        let inside = source.module().as_deref() == Some("sys");
        let unsafe_lines = source.code().filter(|(_, line)| has_word(line, "unsafe"));
        wrong.extend(
            unsafe_lines
                .filter(|_| !inside)
                .map(|(number, _)| source.at(number)),
        );
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn paths_are_written_so_that_they_can_be_searched() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        let hidden = |line: &str| line.contains("crate::{") || line.contains("super::super");
        let lines = source.code().filter(|(_, line)| hidden(line));
        wrong.extend(lines.map(|(number, _)| source.at(number)));
    }
    assert_eq!(wrong, Vec::<String>::new());
}
