//! Paths below a root: what the runtime opens is what a model of the rules says, in trees and by paths of chance, and
//! nothing is ever made outside.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use bulkhead::sys::path;
use bulkhead::sys::tree;
use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use super::source::Source;

/// Names in the tree, and beside it.
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "outside"];
/// Parts of paths and of links.
const PARTS: [&str; 9] = ["a", "b", "c", "d", "e", "..", ".", "", "outside"];
/// How many links one resolution follows (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// What one name of the model stands for; its number is its place in the list.
enum Node {
    Directory(Vec<(&'static str, usize)>),
    File,
    Link(String),
}

/// A tree in the file system, and the model of it: each node with the number of its inode.
struct Scene {
    nodes: Vec<(Node, u64)>,
    /// The parent of each node.
    parents: Vec<usize>,
    root: OwnedFd,
}

/// Makes a tree of these bytes, and asks for paths in it until they end.
pub fn run(bytes: &[u8]) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("bulkhead-resolver-{}-{number}", std::process::id());
    let temporary = std::env::temp_dir();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = rustix::fs::open(&temporary, flags, Mode::empty()).unwrap();
    rustix::fs::mkdirat(&above, &name, Mode::RWXU).unwrap();
    let place = rustix::fs::openat(&above, &name, flags, Mode::empty()).unwrap();
    for inner in ["root", "outside"] {
        rustix::fs::mkdirat(&place, inner, Mode::RWXU).unwrap();
    }
    let outside = rustix::fs::openat(&place, "outside", flags, Mode::empty()).unwrap();
    let root = rustix::fs::openat(&place, "root", flags, Mode::empty()).unwrap();
    let mut source = Source::new(bytes);
    if let Some(scene) = Scene::of(&mut source, root) {
        let mut asked = Vec::new();
        while let Some(text) = scene.asked(&mut source) {
            asked.push(text);
        }
        // The tree is no longer the model's from here on.
        for text in asked {
            drop(path::make_directories(
                &scene.root,
                Path::new(&text),
                Mode::RWXU,
            ));
            drop(path::make_file(
                &scene.root,
                Path::new(&text).join("made").as_ref(),
            ));
        }
    }
    let made = rustix::fs::Dir::read_from(&outside).unwrap().count();
    tree::remove(&above, OsStr::new(&name)).unwrap();
    assert_eq!(made, 2, "something was made outside");
}

/// A path of some parts, absolute half of the time.
fn words(source: &mut Source<'_>) -> Option<String> {
    let shape = source.byte()?;
    let mut parts = Vec::new();
    for _ in 0..=(shape >> 1) % 6 {
        parts.push(PARTS[usize::from(source.byte()?) % PARTS.len()]);
    }
    let begin = if shape & 1 == 0 { "" } else { "/" };
    Some(format!("{begin}{}", parts.join("/")))
}

fn inode(of: impl AsFd) -> u64 {
    rustix::fs::fstat(of).unwrap().st_ino
}

impl Scene {
    fn of(source: &mut Source<'_>, root: OwnedFd) -> Option<Self> {
        let mut scene = Self {
            nodes: vec![(Node::Directory(Vec::new()), inode(&root))],
            parents: vec![0],
            root,
        };
        for _ in 0..source.byte()? % 16 {
            scene.grow(source)?;
        }
        Some(scene)
    }

    /// Adds one name to one directory.
    fn grow(&mut self, source: &mut Source<'_>) -> Option<()> {
        let directories = self.nodes.iter().enumerate();
        let directories = directories.filter(|(_, (node, _))| matches!(node, Node::Directory(_)));
        let directories: Vec<usize> = directories.map(|(number, _)| number).collect();
        let parent = directories[usize::from(source.byte()?) % directories.len()];
        let name = NAMES[usize::from(source.byte()?) % NAMES.len()];
        if self.child(parent, name).is_some() {
            return Some(());
        }
        let whole = format!("{}{name}", self.text_of(parent));
        let node = match source.byte()? % 4 {
            0 => {
                rustix::fs::mknodat(&self.root, &whole, FileType::RegularFile, Mode::RWXU, 0)
                    .unwrap();
                Node::File
            }
            1 => {
                rustix::fs::mkdirat(&self.root, &whole, Mode::RWXU).unwrap();
                Node::Directory(Vec::new())
            }
            _ => {
                let target = words(source)?;
                if target.is_empty() {
                    return Some(());
                }
                rustix::fs::symlinkat(&target, &self.root, &whole).unwrap();
                Node::Link(target)
            }
        };
        let stat = rustix::fs::statat(&self.root, &whole, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let number = self.nodes.len();
        self.nodes.push((node, stat.st_ino));
        self.parents.push(parent);
        if let (Node::Directory(names), _) = &mut self.nodes[parent] {
            names.push((name, number));
        }
        Some(())
    }

    fn child(&self, parent: usize, name: &str) -> Option<usize> {
        match &self.nodes[parent].0 {
            Node::Directory(names) => names
                .iter()
                .find_map(|(known, number)| (*known == name).then_some(*number)),
            Node::File | Node::Link(_) => None,
        }
    }

    /// The path of a directory, with a slash behind it, through no link.
    fn text_of(&self, mut number: usize) -> String {
        let mut parts = Vec::new();
        while number != 0 {
            let parent = self.parents[number];
            let Node::Directory(names) = &self.nodes[parent].0 else {
                break;
            };
            parts.extend(
                names
                    .iter()
                    .find(|(_, child)| *child == number)
                    .map(|(name, _)| *name),
            );
            number = parent;
        }
        parts.iter().rev().map(|part| format!("{part}/")).collect()
    }

    /// Asks the kernel and the model for the same path.
    fn asked(&self, source: &mut Source<'_>) -> Option<String> {
        let text = words(source)?;
        let opened = path::open_in(&self.root, Path::new(&text), OFlags::PATH).ok();
        let opened = opened.map(inode);
        assert_eq!(
            opened,
            self.model(&text),
            "{text:?} is not what the model says"
        );
        Some(text)
    }

    /// Where a path leads by the rules of `path_resolution(7)`, as if the root were all there is.
    fn model(&self, text: &str) -> Option<u64> {
        if text.is_empty() {
            return None;
        }
        let mut ahead: VecDeque<String> = text.split('/').map(str::to_owned).collect();
        let (mut here, mut links) = (0, 0);
        while let Some(part) = ahead.pop_front() {
            let Node::Directory(_) = &self.nodes[here].0 else {
                return None;
            };
            let next = match part.as_str() {
                "" | "." => continue,
                ".." => self.parents[here],
                name => self.child(here, name)?,
            };
            let Node::Link(target) = &self.nodes[next].0 else {
                here = next;
                continue;
            };
            links += 1;
            if links > MOST_LINKS {
                return None;
            }
            if target.starts_with('/') {
                here = 0;
            }
            for part in target.split('/').rev() {
                ahead.push_front(part.to_owned());
            }
        }
        Some(self.nodes[here].1)
    }
}
