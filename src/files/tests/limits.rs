//! Many files, few descriptors, no room.

use std::process::Command;

use super::*;

/// Runs one test of this binary again behind a shell that sets a limit first.
fn again_with(limit: &str, test: &str) -> String {
    let binary = std::env::current_exe().unwrap();
    let name = format!("files::tests::limits::{test}");
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{limit}; exec \"$0\" --exact --nocapture \"$1\"")).arg(binary).arg(name);
    let output = command.env("ALTHING_TEST_LIMIT", "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
    text
}

/// Whether this is the process with the limit.
fn limited() -> bool {
    std::env::var_os("ALTHING_TEST_LIMIT").is_some()
}

#[test]
fn ten_thousand_small_files_go_and_come() {
    let disk = Disk::in_memory();
    let top = disk.0.path().join("top");
    for folder in 0..100 {
        fs::create_dir_all(top.join(folder.to_string())).unwrap();
        for file in 0..100 {
            fs::write(top.join(format!("{folder}/{file}")), format!("{folder}-{file}")).unwrap();
        }
    }
    let (files, _) = disk.start();
    let walk = block_on(files.walk(vec![top])).unwrap();
    assert_eq!((walk.entries.len(), walk.skipped_total), (10_000, 0));
    let offer = Offer::sign(&key(), ID, manifest("top".into(), &walk.entries).unwrap(), 1).unwrap();
    let sources = walk.entries.clone();
    accept(&files, &offer);
    for index in 0..offer.manifest().chunks() {
        let source = &sources[index as usize];
        receive(&files, &offer, index, &fs::read(&source.local).unwrap()).unwrap();
        if index == 5_000 {
            assert!(open_below(disk.0.path()) <= handles::OPEN_FILES + 2);
        }
    }
    drop(files);
    let (files, restored) = disk.start();
    assert_eq!(restored[0].verified.len(), 10_000);
    let path = complete(&files, &offer);
    assert_eq!(disk.all().len(), 10_000);
    assert_eq!(fs::read(path.join("42/17")).unwrap(), b"42-17");
}

#[test]
fn few_descriptors_are_enough() {
    if !limited() {
        again_with("ulimit -n 40", "few_descriptors_are_enough");
        return;
    }
    let disk = Disk::new();
    let (files, _) = disk.start();
    let names = (0..100).map(|at| format!("f{at}")).collect::<Vec<_>>();
    let offer = offer(names.iter().map(|name| Entry::file(&["deep", "er", name], 10)).collect());
    accept(&files, &offer);
    // Somebody else holds nearly all that there are.
    let mut held = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        held.push(file);
    }
    held.truncate(held.len() - 8);
    for index in 0..100 {
        receive(&files, &offer, index, &[index as u8; 10]).unwrap();
    }
    assert_eq!(complete(&files, &offer), disk.downloads().join("deep"));
    drop(held);
    assert_eq!(disk.all().len(), 100);
}

#[test]
fn a_full_disk_pauses_and_loses_nothing() {
    if !limited() {
        // Blocks of 512 or 1024 bytes, depending on the shell; a write beyond it is an error and no signal.
        again_with("trap '' XFSZ; ulimit -f 2048", "a_full_disk_pauses_and_loses_nothing");
        return;
    }
    let disk = Disk::new();
    let (files, _) = disk.start();
    let contents = [content(4 << 20, 1), content(1_000, 2)];
    let offer = offer(vec![Entry::file(&["large"], 4 << 20), Entry::file(&["small"], 1_000)]);
    accept(&files, &offer);
    receive(&files, &offer, 4, part(&offer, 4, &contents)).unwrap();
    let full = receive(&files, &offer, 0, part(&offer, 0, &contents));
    assert_eq!(full, Err(StoreError::Full));
    drop(files);
    let (_, restored) = disk.start();
    assert_eq!(numbers(&restored[0]), [4]);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let disk = Disk::new();
    let (files, _) = disk.start();
    let large = offer(vec![Entry::file(&["f"], file_transfer::manifest::MAX_BYTES)]);
    let error = block_on(files.prepare(large, None)).unwrap_err();
    assert!(matches!(error, FileError::NoRoom { .. }), "{error}");
    assert_eq!(disk.all(), []);
    // What one transfer was promised another cannot have.
    let (free, _) = files.inner.downloads.free().unwrap();
    let half = offer(vec![Entry::file(&["f"], free / 3 * 2)]);
    block_on(files.prepare(half.clone(), None)).unwrap();
    let manifest = half.manifest().clone();
    let other = Offer::sign(&key(), TransferId([1; 16]), manifest, 1).unwrap();
    let refused = block_on(files.prepare(other.clone(), None));
    assert!(matches!(refused, Err(FileError::NoRoom { .. })), "{refused:?}");
    block_on(files.discard(ID));
    block_on(files.prepare(other, None)).unwrap();
}
