use super::*;
use alloc::{string::String, vec};
use proptest::prelude::*;

const CREATE: Open = Open {
    write: true,
    create: true,
    exclusive: false,
    truncate: false,
    directory: false,
    mode: 0o644,
};
const READ: Open = Open { write: false, create: false, ..CREATE };
const WRITE: Open = Open { create: false, ..CREATE };

fn put(tree: &mut Tree, path: &[u8], data: &[u8]) {
    let ino = tree.open(path, Open { truncate: true, ..CREATE }, 5).unwrap();
    assert_eq!(tree.write(ino, 0, data, 6), Ok(data.len()));
    tree.close(ino);
}

fn get(tree: &mut Tree, path: &[u8]) -> Result<Vec<u8>, Error> {
    let ino = tree.open(path, READ, 7)?;
    let mut data = vec![0; 1000];
    let n = tree.read(ino, 0, &mut data, 8)?;
    tree.close(ino);
    data.truncate(n);
    Ok(data)
}

fn names(tree: &Tree, path: &[u8]) -> Vec<String> {
    let ino = tree.stat_path(path).unwrap().ino;
    tree.list(ino).unwrap().map(|(n, ..)| String::from_utf8(n.to_vec()).unwrap()).collect()
}

#[test]
fn files_are_found_by_all_their_paths() {
    let mut tree = Tree::new(1);
    tree.make_directory(b"/a", 0o755, 2).unwrap();
    tree.make_directory(b"a/b/", 0o755, 3).unwrap();
    put(&mut tree, b"/a/b/f", b"data");
    for path in
        [&b"/a/b/f"[..], b"a/b/f", b"//a///b/./f", b"/a/b/../b/f", b"/../../a/b/f", b"tmp/../a/b/f"]
    {
        assert_eq!(get(&mut tree, path).unwrap(), b"data", "{}", String::from_utf8_lossy(path));
    }
    assert_eq!(names(&tree, b"/"), ["a", "tmp"]);
    assert_eq!(names(&tree, b"a/."), ["b"]);
    let stat = tree.stat_path(b"/a/b/f").unwrap();
    assert_eq!((stat.len, stat.created, stat.modified, stat.accessed), (4, 5, 6, 8));
    assert_eq!((stat.mode, stat.is_directory, stat.links), (0o644, false, 1));
}

#[test]
fn errors_are_those_of_linux() {
    let mut tree = Tree::new(1);
    put(&mut tree, b"/f", b"");
    tree.make_directory(b"/d", 0, 1).unwrap();
    put(&mut tree, b"/d/g", b"");
    let long = [b'n'; 256];
    for (path, how, error) in [
        (&b""[..], READ, Error::NotFound),
        (b"/none", READ, Error::NotFound),
        (b"/none/f", CREATE, Error::NotFound),
        (b"/f/x", CREATE, Error::NotDirectory),
        (b"/f/", READ, Error::NotDirectory),
        (b"/f/..", READ, Error::NotDirectory),
        (b"/new/", CREATE, Error::IsDirectory),
        (b"/d", WRITE, Error::IsDirectory),
        (b"/d", CREATE, Error::IsDirectory),
        (b"/f", Open { directory: true, ..READ }, Error::NotDirectory),
        (b"/f", Open { exclusive: true, ..CREATE }, Error::Exists),
        (&long, CREATE, Error::NameTooLong),
    ] {
        let got = tree.open(path, how, 2);
        assert_eq!(got, Err(error), "{}", String::from_utf8_lossy(path));
    }
    assert_eq!(tree.make_directory(b"/d", 0, 2), Err(Error::Exists));
    assert_eq!(tree.make_directory(b"/f", 0, 2), Err(Error::Exists));
    assert_eq!(tree.make_directory(b"/", 0, 2), Err(Error::Exists));
    assert_eq!(tree.make_directory(b"/x/y", 0, 2), Err(Error::NotFound));
    assert_eq!(tree.remove_directory(b"/d", 2), Err(Error::NotEmpty));
    assert_eq!(tree.remove_directory(b"/f", 2), Err(Error::NotDirectory));
    assert_eq!(tree.remove_directory(b"/", 2), Err(Error::Busy));
    assert_eq!(tree.remove_directory(b"/d/.", 2), Err(Error::Invalid));
    assert_eq!(tree.unlink(b"/d", 2), Err(Error::IsDirectory));
    assert_eq!(tree.unlink(b"/none", 2), Err(Error::NotFound));
    assert_eq!(tree.unlink(b"/d/g", 2), Ok(()));
    assert_eq!(tree.remove_directory(b"/d/", 2), Ok(()));
    assert_eq!(tree.stat_path(b"/d"), Err(Error::NotFound));
}

#[test]
fn a_file_that_is_open_outlives_its_name() {
    let mut tree = Tree::new(1);
    put(&mut tree, b"/f", b"old");
    let ino = tree.open(b"/f", READ, 2).unwrap();
    tree.unlink(b"/f", 2).unwrap();
    assert_eq!(tree.stat(ino).unwrap().links, 0);
    put(&mut tree, b"/f", b"new");
    let mut buffer = [0; 3];
    assert_eq!(tree.read(ino, 0, &mut buffer, 2), Ok(3));
    assert_eq!(&buffer, b"old");
    tree.close(ino);
    assert_eq!(tree.stat(ino), Err(Error::NotFound));
    assert_eq!(get(&mut tree, b"/f").unwrap(), b"new");
}

#[test]
fn truncation_and_exclusion() {
    let mut tree = Tree::new(1);
    put(&mut tree, b"/f", b"long content");
    let ino = tree.open(b"/f", CREATE, 2).unwrap();
    assert_eq!(tree.len(ino), 12);
    let twice = tree.open(b"/f", Open { truncate: true, ..WRITE }, 2).unwrap();
    assert_eq!((tree.len(ino), twice), (0, ino));
    assert!(tree.open(b"/g", Open { exclusive: true, ..CREATE }, 2).is_ok());
}

proptest! {
    #[test]
    fn any_calls_keep_the_tree_consistent(
        steps in proptest::collection::vec((0_u8..6, "[ab./]{0,8}"), 1..60),
    ) {
        let mut tree = Tree::new(1);
        let mut open = Vec::new();
        for (what, path) in steps {
            let path = path.as_bytes();
            match what {
                0 => drop(tree.make_directory(path, 0, 2)),
                1 => drop(tree.remove_directory(path, 2)),
                2 => drop(tree.unlink(path, 2)),
                3 => open.extend(tree.open(path, CREATE, 2)),
                4 => open.extend(tree.open(path, READ, 2)),
                _ => if let Some(ino) = open.pop() { tree.close(ino) },
            }
            // Everything that is named is reached from the root, and nothing else is kept that is
            // not open.
            let mut reached = vec![ROOT];
            let mut at = 0;
            while at < reached.len() {
                if let Ok(entries) = tree.list(reached[at]) {
                    let below: Vec<Ino> = entries.map(|(_, ino, _)| ino).collect();
                    reached.extend(below);
                }
                at += 1;
            }
            reached.extend(&open);
            reached.sort();
            reached.dedup();
            prop_assert_eq!(tree.inodes.keys().copied().collect::<Vec<_>>(), reached);
        }
    }
}
