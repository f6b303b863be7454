//! What is sent: walking, reading, noticing changes.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use file_transfer::Chunk;

use super::*;

fn paths(walk: &Walk) -> Vec<String> {
    walk.entries.iter().map(|entry| entry.path.join("/")).collect()
}

fn read(files: &Files, file: u32, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
    block_on(files.read(Place { transfer: ID, file, offset }, vec![0; length]))
}

#[test]
fn links_pipes_and_sockets_are_left_out_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    fs::create_dir_all(top.join("b/empty")).unwrap();
    fs::write(top.join("b/z"), b"zz").unwrap();
    fs::write(top.join("b/a.sh"), b"a").unwrap();
    fs::write(top.join("none"), b"").unwrap();
    fs::set_permissions(top.join("b/a.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    symlink("b/z", top.join("link")).unwrap();
    symlink("..", top.join("loop")).unwrap();
    let _socket = UnixListener::bind(top.join("socket")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(top.join("pipe")).status().unwrap().success());
    let walk = walk(&[&top]).unwrap();
    assert_eq!(paths(&walk), ["top/none", "top/b/a.sh", "top/b/z", "top/b/empty"]);
    assert_eq!(walk.bytes, 3);
    let kinds = walk.entries.iter().map(|entry| (entry.folder, entry.executable, entry.size)).collect::<Vec<_>>();
    assert_eq!(kinds, [(false, false, 0), (false, true, 1), (false, false, 2), (true, false, 0)]);
    let reasons = walk.skipped.iter().map(|skipped| {
        (skipped.path.file_name().unwrap().to_str().unwrap(), skipped.reason.split(' ').next_back().unwrap())
    });
    assert_eq!(
        reasons.collect::<Vec<_>>(),
        [("link", "followed"), ("loop", "followed"), ("pipe", "pipe"), ("socket", "socket")]
    );
    assert!(manifest("top".into(), &walk.entries).is_ok());
}

#[test]
fn what_is_named_is_sent_under_its_own_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["one/x", "two/x", "-", "it's \"q\" \\ $HOME `id`.txt"] {
        fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        fs::write(at(name), name).unwrap();
    }
    symlink("one/x", at("link")).unwrap();
    let walk = walk(&[at("one/x"), at("two/x"), at("two/../one/x"), at("two/."), at("-")]).unwrap();
    assert_eq!(paths(&walk), ["x", "x (2)", "two/x", "-"]);
    assert_eq!(walk.skipped_total, 1);
    let other = source::walk(&[at("it's \"q\" \\ $HOME `id`.txt"), at("link")]).unwrap();
    assert_eq!(paths(&other), ["it's \"q\" \\ $HOME `id`.txt", "link"]);
    for (path, words) in [(at("none"), "No such file"), ("/".into(), "root folder"), ("/dev/null".into(), "device")] {
        let error = source::walk(&[path]).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn names_that_are_no_text_are_sent_and_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    fs::create_dir(&top).unwrap();
    for (name, bytes) in [(&b"a\xff"[..], b"1"), (b"a\xfe", b"2")] {
        fs::write(top.join(std::ffi::OsStr::from_bytes(name)), bytes).unwrap();
    }
    let disk = Disk::new();
    let (files, _) = disk.start();
    let walk = walk(&[&top]).unwrap();
    assert_eq!(paths(&walk), ["top/a\u{fffd}", "top/a\u{fffd} (2)"]);
    // Where they lie survives a restart byte by byte.
    let offer = Offer::sign(&key(), ID, manifest("top".into(), &walk.entries).unwrap(), 1).unwrap();
    block_on(files.register(ID, walk.entries)).unwrap();
    block_on(files.keep(Direction::Out, offer.clone())).unwrap();
    block_on(files.save(record(&offer, Direction::Out, State::Active))).unwrap();
    drop(files);
    let (files, restored) = disk.start();
    assert_eq!(restored.len(), 1);
    assert_eq!((read(&files, 0, 0, 1).unwrap(), read(&files, 1, 0, 1).unwrap()), (b"2".to_vec(), b"1".to_vec()));
}

/// A file that is sent, and the process that sends it.
fn sending(disk: &Disk, path: &Path) -> Files {
    let (files, _) = disk.start();
    send(&files, path);
    files
}

fn send(files: &Files, path: &Path) {
    let walk = walk(&[path]).unwrap();
    let offer = Offer::sign(&key(), ID, manifest("f".into(), &walk.entries).unwrap(), 1).unwrap();
    block_on(files.register(ID, walk.entries)).unwrap();
    block_on(files.keep(Direction::Out, offer.clone())).unwrap();
    block_on(files.save(record(&offer, Direction::Out, State::Active))).unwrap();
}

/// What it is called, and what does it to a file.
type Change = (&'static str, fn(&Path));

#[test]
fn a_source_that_changes_is_noticed() {
    let changes: [Change; 7] = [
        ("longer", |path| fs::write(path, vec![1; 2_000]).unwrap()),
        ("shorter", |path| fs::File::options().write(true).open(path).unwrap().set_len(10).unwrap()),
        ("another content", |path| {
            clock_ticks(path.parent().unwrap());
            fs::write(path, vec![2; 1_000]).unwrap();
        }),
        ("another file", |path| {
            let metadata = fs::metadata(path).unwrap();
            fs::write(path.with_extension("new"), vec![2; 1_000]).unwrap();
            let file = fs::File::open(path.with_extension("new")).unwrap();
            file.set_modified(metadata.modified().unwrap()).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }),
        ("gone", |path| fs::remove_file(path).unwrap()),
        ("a link", |path| {
            fs::rename(path, path.with_extension("old")).unwrap();
            symlink(path.with_extension("old"), path).unwrap();
        }),
        ("a pipe", |path| {
            fs::remove_file(path).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        }),
    ];
    for (what, change) in changes {
        for restarted in [false, true] {
            let disk = Disk::new();
            let path = disk.0.path().join("f");
            fs::write(&path, vec![1; 1_000]).unwrap();
            let mut files = sending(&disk, &path);
            assert_eq!(read(&files, 0, 500, 500).unwrap(), [1; 500]);
            change(&path);
            // While the file is open, what has its name now does not matter to who reads: only content can change.
            files.inner.handles.close(ID);
            if restarted {
                drop(files);
                files = disk.start().0;
            }
            assert_eq!(read(&files, 0, 0, 500), Err(StoreError::Changed), "{what}, {restarted}");
            let chunk = Chunk { index: 0, file: 0, offset: 0, length: 1_000, only: true };
            assert_eq!(block_on(files.hash(ID, chunk)), Err(StoreError::Changed), "{what}, {restarted}");
        }
    }
    // Also between two parts, with the file open all the time.
    let disk = Disk::new();
    let path = disk.0.path().join("f");
    fs::write(&path, vec![1; 1_000]).unwrap();
    let files = sending(&disk, &path);
    read(&files, 0, 0, 500).unwrap();
    clock_ticks(disk.0.path());
    fs::File::options()
        .append(true)
        .open(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"x"))
        .unwrap();
    assert_eq!(read(&files, 0, 500, 500), Err(StoreError::Changed));
}

#[test]
fn hashes_of_what_was_read_survive_and_lost_ones_are_made_again() {
    let disk = Disk::new();
    let path = disk.0.path().join("f");
    let bytes = content(3 * (1 << 20) + 5, 7);
    fs::write(&path, &bytes).unwrap();
    let files = sending(&disk, &path);
    let manifest = Manifest::new("f".into(), vec![Entry::file(&["f"], bytes.len() as u64)]).unwrap();
    let want = (0..4).map(|index| {
        let chunk = manifest.chunk(index).unwrap();
        hash::of_chunk(&chunk, &bytes[chunk.offset as usize..][..chunk.length as usize])
    });
    let want = want.collect::<Vec<_>>();
    block_on(files.verified(ID, 1, want[1..3].to_vec())).unwrap();
    drop(files);
    let (files, restored) = disk.start();
    assert_eq!(restored[0].verified, [(1, want[1]), (2, want[2])]);
    for index in [0, 3] {
        let chunk = manifest.chunk(index).unwrap();
        assert_eq!(block_on(files.hash(ID, chunk)).unwrap(), want[index as usize]);
    }
    block_on(files.discard(ID));
    assert_eq!(read(&files, 0, 0, 1), Err(StoreError::Unknown));
    assert_eq!(fs::read(path).unwrap(), bytes, "the source stays");
}

#[test]
fn a_pipe_is_spooled_and_the_spool_goes_with_its_transfer() {
    let disk = Disk::new();
    let transfers = disk.0.path().join("transfers");
    let bytes = content(100_000, 9);
    let (files, _) = disk.start();
    let spooled = spool(&transfers, 7, &mut bytes.as_slice()).unwrap();
    let unused = spool(&transfers, 8, &mut &b"nobody sends this"[..]).unwrap();
    send(&files, &spooled);
    drop(files);
    let (files, _) = disk.start();
    assert_eq!(read(&files, 0, 99_000, 1_000).unwrap(), bytes[99_000..]);
    assert!(!unused.exists(), "the start removes what nobody sends");
    block_on(files.discard(ID));
    assert!(!spooled.exists());
}
