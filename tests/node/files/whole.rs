//! What arrives is what was sent.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use super::{Pair, fill, noise, number, reaches, tree};
use crate::harness::{TestResult, text};

#[tokio::test]
async fn files_of_every_size_arrive_whole() -> TestResult {
    let mut pair = Pair::new(&[]).await?;
    for length in [0, 1, 1 << 10, 10 << 10, 100 << 10, (1 << 20) + 1, 64 << 20] {
        let name = format!("{length}.bin");
        let path = fill(pair.sources().join(&name), length as u64, length)?;
        let there = pair.deliver(&path).await?;
        let arrived = std::fs::read(pair.downloads().join(&name))?;
        assert!(arrived == noise(length as u64, length), "{length} bytes arrived otherwise");
        assert_eq!((text(&there, "file"), there["total"].as_u64()), (name.as_str(), Some(length as u64)));
        assert_eq!(text(&there, "path"), pair.downloads().join(&name).display().to_string());
        // What `b3sum` prints.
        assert_eq!(text(&there, "hash"), blake3::hash(&arrived).to_hex().as_str(), "{length}");
    }
    assert_eq!(tree(&pair.downloads())?.len(), 7);
    Ok(())
}

#[tokio::test]
async fn a_folder_arrives_with_its_tree_times_and_rights() -> TestResult {
    let mut pair = Pair::new(&[]).await?;
    let tools = pair.sources().join("tools");
    std::fs::create_dir_all(tools.join("deep/er"))?;
    std::fs::create_dir_all(tools.join("empty"))?;
    let run = fill(tools.join("run"), 1, 3_000)?;
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755))?;
    let old = fill(tools.join("deep/er/old.txt"), 2, 1_200_000)?;
    std::fs::File::options()
        .write(true)
        .open(&old)?
        .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_007))?;
    fill(tools.join("none"), 3, 0)?;
    std::os::unix::fs::symlink("/etc/passwd", tools.join("link"))?;
    let sent = pair.ada.ask(&format!("send {} bob", tools.display())).await?;
    let skipped = &sent["skipped"];
    assert_eq!(skipped.as_array().map(Vec::len), Some(1), "{sent}");
    assert!(text(&skipped[0], "path").ends_with("tools/link"), "{sent}");
    reaches(&pair.bob, 0, text(&sent, "id"), "completed").await?;
    let mut expected = tree(&tools)?;
    assert!(expected.remove("link").is_some());
    let there = pair.downloads().join("tools");
    assert_eq!(tree(&there)?, expected);
    assert_eq!(std::fs::metadata(there.join("run"))?.permissions().mode() & 0o100, 0o100);
    assert_eq!(std::fs::metadata(there.join("none"))?.permissions().mode() & 0o111, 0);
    for name in ["run", "deep/er/old.txt"] {
        let modified = |root: &std::path::Path| std::fs::metadata(root.join(name)).and_then(|file| file.modified());
        assert_eq!(modified(&there)?, modified(&tools)?, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn hundreds_of_small_files_arrive() -> TestResult {
    // `scripts/soak` asks for more.
    let count = usize::try_from(number("ALTHING_TEST_SMALL_FILES").unwrap_or(500))?;
    let mut pair = Pair::new(&[]).await?;
    let many = pair.sources().join("many");
    for number in 0..count {
        let folder = many.join(format!("{:02}", number % 100));
        std::fs::create_dir_all(&folder)?;
        fill(folder.join(format!("{number}.txt")), number as u64, number % 4_099)?;
    }
    pair.deliver(&many).await?;
    let there = tree(&pair.downloads().join("many"))?;
    assert_eq!(there.len(), count);
    assert!(there == tree(&many)?, "some arrived otherwise");
    Ok(())
}

#[tokio::test]
async fn nothing_that_is_there_is_overwritten_or_written_through() -> TestResult {
    let mut pair = Pair::new(&[]).await?;
    let outside = pair.net.folder.path().join("outside");
    std::fs::create_dir_all(pair.downloads().join("folder.txt"))?;
    std::fs::write(&outside, "theirs")?;
    std::os::unix::fs::symlink(&outside, pair.downloads().join("link.txt"))?;
    std::fs::write(pair.downloads().join("file.txt"), "theirs")?;
    let fifo = std::process::Command::new("mkfifo").arg(pair.downloads().join("pipe.txt")).status()?;
    assert!(fifo.success());
    for name in ["file.txt", "folder.txt", "link.txt", "pipe.txt"] {
        let path = fill(pair.sources().join(name), 5, 2_000)?;
        for second in [" (2)", " (3)"] {
            let there = pair.deliver(&path).await?;
            let expected = pair.downloads().join(name.replace('.', &format!("{second}.")));
            assert_eq!(text(&there, "path"), expected.display().to_string());
            assert!(std::fs::read(&expected)? == noise(5, 2_000), "{}", expected.display());
        }
    }
    assert_eq!(std::fs::read_to_string(&outside)?, "theirs");
    assert_eq!(std::fs::read_to_string(pair.downloads().join("file.txt"))?, "theirs");
    assert!(std::fs::symlink_metadata(pair.downloads().join("link.txt"))?.is_symlink());
    Ok(())
}
