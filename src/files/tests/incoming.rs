//! What arrives: names, swaps, restarts at every step.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

const MIB: usize = 1 << 20;

/// Two files, a folder without anything, a file without anything: four chunks.
fn mixed() -> (Offer, Vec<Vec<u8>>) {
    let contents = vec![content(2 * MIB + 100, 1), content(700, 2), Vec::new(), Vec::new()];
    let file = |path: &[&str], at: usize| Entry {
        mtime_ns: 1_500_000_000_123_456_789,
        executable: at == 1,
        ..Entry::file(path, contents[at].len() as u64)
    };
    let empty = Entry { kind: Kind::Folder, ..file(&["top", "hollow", "inner"], 2) };
    let entries = vec![file(&["top", "a", "big"], 0), file(&["top", "run.sh"], 1), empty, file(&["top", "empty"], 3)];
    (offer(entries), contents)
}

fn check_mixed(top: &Path, contents: &[Vec<u8>]) {
    assert_eq!(fs::read(top.join("a/big")).unwrap(), contents[0]);
    assert_eq!(fs::read(top.join("run.sh")).unwrap(), contents[1]);
    assert_eq!(fs::read(top.join("empty")).unwrap(), b"");
    assert!(top.join("hollow/inner").is_dir());
    for name in ["a/big", "run.sh", "empty", "hollow/inner"] {
        let metadata = fs::metadata(top.join(name)).unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_500_000_000, 123_456_789), "{name}");
        if !metadata.is_dir() {
            assert_eq!(metadata.permissions().mode() & 0o100 != 0, name == "run.sh", "{name}");
        }
    }
}

#[test]
fn a_folder_arrives_whole_and_nothing_else_stays() {
    let disk = Disk::new();
    let (files, restored) = disk.start();
    assert!(restored.is_empty());
    let (offer, contents) = mixed();
    accept(&files, &offer);
    receive_all(&files, &offer, &contents);
    assert!(!disk.downloads().join("top").exists(), "it appears as a whole");
    let path = complete(&files, &offer);
    assert_eq!(path, disk.downloads().join("top"));
    check_mixed(&path, &contents);
    let names = disk.all().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names, ["top/a/big", "top/empty", "top/run.sh"]);
    assert!(!disk.downloads().join(".partial").exists());
    assert_eq!(open_below(disk.0.path()), 1, "only the download folder stays open");
}

#[test]
fn a_process_that_dies_after_any_step_goes_on_where_it_was() {
    let (offer, contents) = mixed();
    // After so many chunks, and then after each step of the end.
    for dies_after in 0..=7 {
        let disk = Disk::new();
        let (files, _) = disk.start();
        accept(&files, &offer);
        for index in 0..4.min(dies_after) {
            receive(&files, &offer, index, part(&offer, index, &contents)).unwrap();
        }
        let (first, second) = (offer.manifest().chunk(2).unwrap(), PIECE as u64);
        match dies_after {
            // A piece that was not verified does not count.
            2 => {
                let place = Place { transfer: ID, file: first.file, offset: first.offset };
                block_on(files.write(place, vec![9; 100])).unwrap();
                assert!(second > 100);
            }
            5 => drop(finish(&files).unwrap()),
            6 => drop(complete(&files, &offer)),
            // The names were chosen, and nothing was moved yet; a stranger takes the name meanwhile.
            7 => {
                let Some(Known::In(sink)) = files.inner.known(ID) else { panic!("not known") };
                let stop = |placement: &sink::Placement| {
                    files.inner.records.put_placement(ID, placement)?;
                    Err(FileError::Busy)
                };
                sink.finish(|| Ok(None), stop).unwrap_err();
                fs::write(disk.downloads().join("top"), b"a stranger's").unwrap();
            }
            _ => {}
        }
        drop(files);

        let (files, restored) = disk.start();
        assert_eq!(restored.len(), 1, "{dies_after}");
        let restored = &restored[0];
        assert_eq!(restored.offer, offer);
        if dies_after == 6 {
            assert_eq!(restored.records[0].state, State::Completed);
        } else {
            let want = (0..4.min(dies_after)).collect::<Vec<_>>();
            assert_eq!(numbers(restored), want, "{dies_after}");
            for (index, hash) in &restored.verified {
                let chunk = offer.manifest().chunk(*index).unwrap();
                assert_eq!(*hash, hash::of_chunk(&chunk, part(&offer, *index, &contents)));
            }
            for index in want.len() as u64..4 {
                receive(&files, &offer, index, part(&offer, index, &contents)).unwrap();
            }
            let name = if dies_after == 7 { "top (2)" } else { "top" };
            assert_eq!(complete(&files, &offer), disk.downloads().join(name), "{dies_after}");
        }
        drop(files);
        check_mixed(&disk.downloads().join(if dies_after == 7 { "top (2)" } else { "top" }), &contents);
        assert_eq!(disk.all().len(), if dies_after == 7 { 4 } else { 3 }, "{dies_after}: {:?}", disk.all());
        let (files, restored) = disk.start();
        assert_eq!(restored[0].records[0].state, State::Completed);
        block_on(files.forget(ID, key().public().to_peer_id())).unwrap();
        assert_eq!(fs::read_dir(disk.0.path().join("transfers")).unwrap().count(), 0);
    }
}

#[test]
fn finishing_twice_gives_the_same_path_and_no_copy() {
    let disk = Disk::new();
    let (offer, contents) = mixed();
    let (files, _) = disk.start();
    accept(&files, &offer);
    receive_all(&files, &offer, &contents);
    let path = finish(&files).unwrap();
    assert_eq!(finish(&files).unwrap(), path);
    drop(files);
    let (files, _) = disk.start();
    assert_eq!(complete(&files, &offer), path);
    assert_eq!(disk.all().len(), 3);
}

#[test]
fn what_is_not_whole_gets_no_name() {
    let disk = Disk::new();
    let (offer, contents) = mixed();
    let (files, _) = disk.start();
    accept(&files, &offer);
    for index in [0, 1, 3] {
        receive(&files, &offer, index, part(&offer, index, &contents)).unwrap();
    }
    assert!(finish(&files).is_err());
    assert!(!disk.downloads().join("top").exists());
    receive(&files, &offer, 2, part(&offer, 2, &contents)).unwrap();
    check_mixed(&complete(&files, &offer), &contents);
}

#[test]
fn after_a_power_loss_only_what_was_synced_is_believed() {
    let disk = Disk::new();
    let contents = vec![content(4 * MIB, 3)];
    let offer = offer(vec![Entry::file(&["f"], contents[0].len() as u64)]);
    let (files, _) = disk.start();
    accept(&files, &offer);
    for index in 0..2 {
        receive(&files, &offer, index, part(&offer, index, &contents)).unwrap();
    }
    let Some(Known::In(sink)) = files.inner.known(ID) else { panic!("not known") };
    sink.sync().unwrap();
    for index in 2..4 {
        receive(&files, &offer, index, part(&offer, index, &contents)).unwrap();
    }
    drop((sink, files));
    // Another run of the system wrote it; what it had not synced, chunk 3, did not reach the disk.
    use std::os::unix::fs::FileExt as _;
    let journal = fs::File::options().write(true).open(disk.partial("chunks")).unwrap();
    journal.write_all_at(&[1; 16], 32).unwrap();
    let file = fs::File::options().write(true).open(disk.partial("tree/f")).unwrap();
    file.write_all_at(&[0; 1000], 3 * MIB as u64).unwrap();
    let (files, restored) = disk.start();
    assert_eq!(numbers(&restored[0]), [0, 1, 2]);
    receive(&files, &offer, 3, part(&offer, 3, &contents)).unwrap();
    assert_eq!(fs::read(complete(&files, &offer)).unwrap(), contents[0]);
}

#[test]
fn a_partial_file_that_somebody_changed_is_never_served_as_good() {
    let contents = vec![content(3 * MIB, 4)];
    let offer = offer(vec![Entry::file(&["f"], contents[0].len() as u64)]);
    for (damage, left) in [("bit", vec![0, 1]), ("short", vec![0]), ("gone", vec![]), ("journal", vec![1])] {
        let disk = Disk::new();
        let (files, _) = disk.start();
        accept(&files, &offer);
        for index in 0..2 {
            receive(&files, &offer, index, part(&offer, index, &contents)).unwrap();
        }
        drop(files);
        clock_ticks(&disk.downloads());
        use std::os::unix::fs::FileExt as _;
        let open = |name| fs::File::options().write(true).open(disk.partial(name)).unwrap();
        match damage {
            "bit" => open("tree/f").write_all_at(&[contents[0][100] ^ 1], 100).unwrap(),
            "short" => open("tree/f").set_len(MIB as u64 + 5).unwrap(),
            "gone" => fs::remove_file(disk.partial("tree/f")).unwrap(),
            _ => open("chunks").write_all_at(&[1], 4096 + 3).unwrap(),
        }
        let (files, restored) = disk.start();
        assert_eq!(numbers(&restored[0]), left, "{damage}");
        for index in (0..3).filter(|index| !left.contains(index)) {
            receive(&files, &offer, index, part(&offer, index, &contents)).unwrap();
        }
        if damage == "bit" {
            assert!(matches!(finish(&files), Err(StoreError::Io(_))));
            assert!(!disk.downloads().join("f").exists());
            block_on(files.discard(ID));
            assert_eq!(disk.all(), []);
        } else {
            assert_eq!(fs::read(complete(&files, &offer)).unwrap(), contents[0], "{damage}");
        }
    }
}

#[test]
fn damaged_records_are_said_and_set_aside() {
    let disk = Disk::new();
    let (offer, contents) = mixed();
    for name in ["offer".to_owned(), format!("record-{}", key().public().to_peer_id())] {
        for cut in [false, true] {
            let (files, _) = disk.start();
            accept(&files, &offer);
            receive(&files, &offer, 0, part(&offer, 0, &contents)).unwrap();
            drop(files);
            let path = disk.0.path().join("transfers").join(format!("in-{ID}")).join(&name);
            let mut bytes = fs::read(&path).unwrap();
            if cut {
                bytes.truncate(bytes.len() / 2);
            } else {
                let at = bytes.len() - 3;
                bytes[at] ^= 1;
            }
            fs::write(&path, bytes).unwrap();
            let (_, restored, said) = disk.start_and_say();
            assert!(restored.is_empty());
            assert_eq!(said.len(), 1, "{said:?}");
            assert_eq!(disk.all(), [], "what nobody can go on with is removed");
        }
    }
}

#[test]
fn every_hostile_name_stays_in_the_folder() {
    let disk = Disk::new();
    for (name, becomes) in [
        ("con.txt", "con.txt"),
        ("-rf", "-rf"),
        (".bashrc", ".bashrc"),
        (".partial", ".partial (2)"),
        ("it's \"q\" \\ $HOME `id`.txt", "it's \"q\" \\ $HOME `id`.txt"),
        ("two  words", "two  words"),
        ("a\\..\\b", "a_.._b"),
        ("C:\\x", "C__x"),
        ("a\u{202e}txt.exe", "a_txt.exe"),
        ("x\u{1b}[2J.txt", "x_[2J.txt"),
        ("...", "_"),
        ("dot.", "dot"),
        (&"n".repeat(255), &"n".repeat(255)),
    ] {
        assert_eq!(arrives_as(&disk, name), becomes);
    }
    assert!(fs::read_dir(disk.0.path()).unwrap().count() == 2, "downloads and transfers");
}

#[test]
fn a_name_that_is_taken_is_left_alone() {
    let disk = Disk::new();
    drop(disk.start());
    let at = |name: &str| disk.downloads().join(name);
    fs::write(at("file"), b"mine").unwrap();
    fs::create_dir(at("folder")).unwrap();
    symlink("/nowhere", at("link")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    for name in ["file", "folder", "link", "pipe"] {
        assert_eq!(arrives_as(&disk, name), format!("{name} (2)"));
    }
    assert_eq!(arrives_as(&disk, "file"), "file (3)");
    let long = "n".repeat(251) + ".txt";
    assert_eq!(arrives_as(&disk, &long), long);
    assert_eq!(arrives_as(&disk, &long), "n".repeat(247) + " (2).txt");
    assert_eq!(fs::read(at("file")).unwrap(), b"mine");
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("/nowhere"));
}

#[test]
fn twins_of_one_offer_all_arrive() {
    let disk = Disk::new();
    let (files, _) = disk.start();
    let names = ["x", "x.", "e\u{301}", "\u{e9}", "X"];
    let contents = (0..5).map(|at| vec![at; 3]).collect::<Vec<_>>();
    let offer = offer(names.iter().map(|name| Entry::file(&[name], 3)).collect());
    accept(&files, &offer);
    receive_all(&files, &offer, &contents);
    assert_eq!(complete(&files, &offer), disk.downloads());
    let mut arrived = disk.all().into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>();
    arrived.sort();
    assert_eq!(arrived, contents);
}

#[test]
fn a_link_swapped_in_leads_nowhere() {
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("big"), b"precious").unwrap();
    let (offer, contents) = mixed();
    // Before the file is there, in the place of the file, in the place of a folder above it, and of the hidden folder.
    for swapped in ["tree/top/a/big", "tree/top/a", "tree/top", "tree", "", ".."] {
        let disk = Disk::new();
        let (files, _) = disk.start();
        accept(&files, &offer);
        receive(&files, &offer, 0, part(&offer, 0, &contents)).unwrap();
        files.inner.handles.close(ID);
        let path = disk.partial("").components().collect::<PathBuf>();
        let path = match swapped {
            ".." => path.parent().unwrap().to_owned(),
            "" => path,
            inner => path.join(inner),
        };
        fs::rename(&path, disk.0.path().join("moved away")).unwrap();
        let target = elsewhere.path().join(if swapped.ends_with("big") { "big" } else { "" });
        symlink(target, &path).unwrap();
        let done = receive(&files, &offer, 1, part(&offer, 1, &contents));
        assert!(matches!(done, Err(StoreError::Io(_))), "{swapped:?}: {done:?}");
        assert!(finish(&files).is_err());
        assert_eq!(fs::read(elsewhere.path().join("big")).unwrap(), b"precious");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
        // Removing it removes the link, not what it leads to.
        block_on(files.discard(ID));
        drop(files);
        drop(disk.start_and_say());
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1, "{swapped:?}");
    }
}

#[test]
fn a_stranger_in_the_place_of_a_partial_file_is_not_written_to() {
    let (offer, contents) = mixed();
    for kind in ["pipe", "folder", "second name"] {
        let disk = Disk::new();
        let outside = disk.0.path().join("outside");
        fs::write(&outside, b"precious").unwrap();
        let (files, _) = disk.start();
        accept(&files, &offer);
        fs::create_dir_all(disk.partial("tree/top/a")).unwrap();
        let path = disk.partial("tree/top/a/big");
        match kind {
            "pipe" => assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success()),
            "folder" => fs::create_dir(&path).unwrap(),
            _ => fs::hard_link(&outside, &path).unwrap(),
        }
        let done = receive(&files, &offer, 0, part(&offer, 0, &contents));
        assert!(matches!(done, Err(StoreError::Io(_))), "{kind}: {done:?}");
        assert_eq!(fs::read(&outside).unwrap(), b"precious");
    }
}

#[test]
fn a_given_up_write_never_lands_on_what_came_later() {
    let disk = Disk::new();
    let (files, _) = disk.start();
    let offer = offer(vec![Entry::file(&["f"], 100)]);
    accept(&files, &offer);
    let Some(Known::In(sink)) = files.inner.known(ID) else { panic!("not known") };
    let stale = sink.announce(0, 0, 100);
    let other = sink.announce(0, 90, 10);
    receive(&files, &offer, 0, &[7; 100]).unwrap();
    // Its thread only comes to it now.
    sink.write(stale, &[6; 100]).unwrap();
    sink.write(other, &[5; 10]).unwrap();
    assert_eq!(fs::read(complete(&files, &offer)).unwrap(), [7; 100]);
}

#[test]
fn nothing_is_written_beyond_what_was_offered() {
    let disk = Disk::new();
    let (files, _) = disk.start();
    let offer = offer(vec![Entry::file(&["f"], 100)]);
    accept(&files, &offer);
    let write =
        |file, offset, length| block_on(files.write(Place { transfer: ID, file, offset }, vec![1; length])).map(drop);
    assert_eq!(write(0, 0, 101), Err(StoreError::Unknown));
    assert_eq!(write(0, 100, 1), Err(StoreError::Unknown));
    assert_eq!(write(0, u64::MAX, 10), Err(StoreError::Unknown));
    assert_eq!(write(1, 0, 1), Err(StoreError::Unknown));
    assert!(block_on(files.verified(ID, 1, vec![Hash([1; 32])])).is_err());
    assert!(block_on(files.verified(ID, u64::MAX, vec![Hash([1; 32])])).is_err());
    assert_eq!(write(0, 0, 100), Ok(()));
    assert_eq!(
        block_on(files.write(Place { transfer: TransferId([1; 16]), file: 0, offset: 0 }, vec![1])),
        Err(StoreError::Unknown)
    );
}

#[test]
fn giving_up_removes_everything_however_deep() {
    let disk = Disk::new();
    let (files, _) = disk.start();
    let deep = ["d"; 60];
    let offer = offer(vec![Entry::file(&deep, 10), Entry::file(&["top", "x"], 10), Entry::file(&["top", "y"], 10)]);
    accept(&files, &offer);
    for index in 0..3 {
        receive(&files, &offer, index, &[1; 10]).unwrap();
    }
    block_on(files.discard(ID));
    assert_eq!(fs::read_dir(disk.downloads()).unwrap().count(), 0);
    assert_eq!(block_on(files.write(Place { transfer: ID, file: 0, offset: 0 }, vec![1])), Err(StoreError::Unknown));
    block_on(files.save(record(&offer, Direction::In, State::Cancelled))).unwrap();
    // What a crash left of a transfer that nobody knows goes at the next start, and nothing else does.
    drop(files);
    fs::create_dir_all(disk.downloads().join(".partial/0123/tree/a/b")).unwrap();
    fs::write(disk.downloads().join(".partial/0123/tree/a/b/c"), b"x").unwrap();
    fs::write(disk.downloads().join("mine"), b"x").unwrap();
    drop(disk.start());
    assert_eq!(disk.all(), [("mine".to_owned(), b"x".to_vec())]);
}

#[test]
fn another_folder_may_be_chosen_and_is_found_again() {
    let disk = Disk::new();
    let other = disk.0.path().join("other/folder");
    let (offer, contents) = mixed();
    let (files, _) = disk.start();
    block_on(files.keep(Direction::In, offer.clone())).unwrap();
    block_on(files.prepare(offer.clone(), Some(other.clone()))).unwrap();
    block_on(files.save(record(&offer, Direction::In, State::Active))).unwrap();
    receive(&files, &offer, 0, part(&offer, 0, &contents)).unwrap();
    drop(files);
    let (files, restored) = disk.start();
    assert_eq!(numbers(&restored[0]), [0]);
    for index in 1..4 {
        receive(&files, &offer, index, part(&offer, index, &contents)).unwrap();
    }
    assert_eq!(finish(&files).unwrap(), other.join("top"));
    // It dies after the last record, before what is left was removed.
    files.inner.records.save(&record(&offer, Direction::In, State::Completed)).unwrap();
    drop(files);
    assert!(other.join(".partial").exists());
    drop(disk.start());
    check_mixed(&other.join("top"), &contents);
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
    assert_eq!(fs::read_dir(disk.downloads()).unwrap().count(), 0);
}
