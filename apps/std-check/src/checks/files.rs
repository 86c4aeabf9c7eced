//! One file at a time: create, read, write, seek, append, and refusals.

use super::folders::TempDir;
use crate::check::{Outcome, not_on_hermit};
use crate::{checks, ensure, ensure_eq, ensure_error};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime};

checks!["files": write_and_read, large, seek, sparse, append, truncate_on_open, create_new,
    missing, wrong_access,
    two_handles, read_write_handle, vectored, lines, length_and_type, modified_is_now,
        unlink_while_open, many_open, copy, set_len, sync, try_clone, is_a_directory];

fn write_and_read() -> Outcome {
    let dir = TempDir::new("write_and_read")?;
    let path = dir.join("a file");
    fs::write(&path, b"hello")?;
    ensure_eq!(fs::read(&path)?, b"hello");
    fs::write(&path, b"bye")?;
    ensure_eq!(fs::read_to_string(&path)?, "bye");
    fs::write(&path, b"")?;
    ensure_eq!(fs::read(&path)?, b"");
    Ok(())
}

fn large() -> Outcome {
    let dir = TempDir::new("large")?;
    let path = dir.join("large");
    let data: Vec<u8> =
        (0..1_500_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut file = File::create(&path)?;
    for chunk in data.chunks(7919) {
        file.write_all(chunk)?;
    }
    drop(file);
    ensure_eq!(fs::metadata(&path)?.len(), data.len() as u64);
    ensure!(fs::read(&path)? == data, "what was read is not what was written");
    Ok(())
}

fn seek() -> Outcome {
    let dir = TempDir::new("seek")?;
    let path = dir.join("f");
    fs::write(&path, b"0123456789")?;
    let mut file = File::open(&path)?;
    let mut two = [0; 2];
    ensure_eq!(file.seek(SeekFrom::Start(4))?, 4);
    file.read_exact(&mut two)?;
    ensure_eq!(&two, b"45");
    ensure_eq!(file.seek(SeekFrom::Current(-3))?, 3);
    file.read_exact(&mut two)?;
    ensure_eq!(&two, b"34");
    ensure_eq!(file.seek(SeekFrom::End(-2))?, 8);
    file.read_exact(&mut two)?;
    ensure_eq!(&two, b"89");
    ensure_eq!(file.read(&mut two)?, 0);
    ensure_eq!(file.stream_position()?, 10);
    ensure_error!(file.seek(SeekFrom::Current(-11)), InvalidInput);
    file.rewind()?;
    ensure_eq!(file.stream_position()?, 0);
    Ok(())
}

fn sparse() -> Outcome {
    let dir = TempDir::new("sparse")?;
    let path = dir.join("f");
    let mut file = File::create(&path)?;
    file.write_all(b"a")?;
    file.seek(SeekFrom::Start(5000))?;
    file.write_all(b"b")?;
    drop(file);
    let content = fs::read(&path)?;
    ensure_eq!(content.len(), 5001);
    ensure!(content[1..5000].iter().all(|&b| b == 0), "the hole is not zero");
    ensure_eq!((content[0], content[5000]), (b'a', b'b'));
    Ok(())
}

fn append() -> Outcome {
    let dir = TempDir::new("append")?;
    let path = dir.join("f");
    let mut one = OpenOptions::new().append(true).create(true).open(&path)?;
    let mut two = OpenOptions::new().append(true).open(&path)?;
    one.write_all(b"1")?;
    two.write_all(b"2")?;
    one.write_all(b"3")?;
    ensure_eq!(fs::read(&path)?, b"123");
    Ok(())
}

fn truncate_on_open() -> Outcome {
    let dir = TempDir::new("truncate_on_open")?;
    let path = dir.join("f");
    fs::write(&path, b"long content")?;
    drop(OpenOptions::new().write(true).truncate(true).open(&path)?);
    ensure_eq!(fs::metadata(&path)?.len(), 0);
    // Without truncation, what is not overwritten stays.
    fs::write(&path, b"abc")?;
    OpenOptions::new().write(true).create(true).truncate(false).open(&path)?.write_all(b"X")?;
    ensure_eq!(fs::read(&path)?, b"Xbc");
    Ok(())
}

fn create_new() -> Outcome {
    let dir = TempDir::new("create_new")?;
    let path = dir.join("f");
    File::create_new(&path)?.write_all(b"first")?;
    ensure_error!(File::create_new(&path), AlreadyExists);
    ensure_eq!(fs::read(&path)?, b"first");
    Ok(())
}

fn missing() -> Outcome {
    let dir = TempDir::new("missing")?;
    ensure_error!(File::open(dir.join("none")), NotFound);
    ensure_error!(fs::metadata(dir.join("none")), NotFound);
    ensure_error!(fs::remove_file(dir.join("none")), NotFound);
    ensure_error!(File::create(dir.join("no/such/dir")), NotFound);
    ensure!(!fs::exists(dir.join("none"))?, "a file that is not there exists");
    Ok(())
}

fn wrong_access() -> Outcome {
    let dir = TempDir::new("wrong_access")?;
    let path = dir.join("f");
    fs::write(&path, b"x")?;
    ensure!(File::open(&path)?.write(b"y").is_err(), "a file opened for reading was written");
    let mut buffer = [0];
    let mut writer = OpenOptions::new().write(true).open(&path)?;
    ensure!(writer.read(&mut buffer).is_err(), "a file opened for writing was read");
    writer.write_all(b"z")?;
    ensure_eq!(fs::read(&path)?, b"z");
    Ok(())
}

fn two_handles() -> Outcome {
    let dir = TempDir::new("two_handles")?;
    let path = dir.join("f");
    let mut writer = File::create(&path)?;
    let mut reader = File::open(&path)?;
    let mut text = String::new();
    for n in 0..10 {
        write!(writer, "{n}")?;
        reader.read_to_string(&mut text)?; // Reads on from where it was.
    }
    ensure_eq!(text, "0123456789");
    Ok(())
}

fn read_write_handle() -> Outcome {
    let dir = TempDir::new("read_write_handle")?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(dir.join("f"))?;
    file.write_all(b"abcdef")?;
    file.seek(SeekFrom::Start(2))?;
    file.write_all(b"XY")?;
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    ensure_eq!(text, "abXYef");
    Ok(())
}

fn vectored() -> Outcome {
    let dir = TempDir::new("vectored")?;
    let path = dir.join("f");
    let n = File::create(&path)?.write_vectored(&[
        IoSlice::new(b"ab"),
        IoSlice::new(b""),
        IoSlice::new(b"cde"),
    ])?;
    ensure_eq!(n, 5);
    let (mut a, mut b) = ([0; 3], [0; 5]);
    let n = File::open(&path)?
        .read_vectored(&mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)])?;
    ensure_eq!((n, &a, &b[..2]), (5, b"abc", &b"de"[..]));
    Ok(())
}

fn lines() -> Outcome {
    let dir = TempDir::new("lines")?;
    let path = dir.join("f");
    let text: String = (0..5000).map(|n| format!("line {n}\n")).collect();
    fs::write(&path, &text)?;
    let mut count = 0;
    for (n, line) in BufReader::new(File::open(&path)?).lines().enumerate() {
        ensure_eq!(line?, format!("line {n}"));
        count += 1;
    }
    ensure_eq!(count, 5000);
    Ok(())
}

fn length_and_type() -> Outcome {
    let dir = TempDir::new("length_and_type")?;
    let path = dir.join("f");
    fs::write(&path, [0; 1234])?;
    let by_path = fs::metadata(&path)?;
    let by_handle = File::open(&path)?.metadata()?;
    for metadata in [by_path, by_handle, fs::symlink_metadata(&path)?] {
        ensure!(metadata.is_file() && !metadata.is_dir() && !metadata.is_symlink(), "not a file");
        ensure_eq!(metadata.len(), 1234);
        ensure!(!metadata.permissions().readonly(), "a new file is read-only");
    }
    Ok(())
}

fn modified_is_now() -> Outcome {
    let dir = TempDir::new("modified_is_now")?;
    let path = dir.join("f");
    fs::write(&path, b"1")?;
    let modified = fs::metadata(&path)?.modified()?;
    let now = SystemTime::now();
    let apart = now.duration_since(modified).unwrap_or_else(|e| e.duration());
    ensure!(apart < Duration::from_secs(10), "a file written now was modified {apart:?} from now");
    Ok(())
}

fn unlink_while_open() -> Outcome {
    let dir = TempDir::new("unlink_while_open")?;
    let path = dir.join("f");
    fs::write(&path, b"still here")?;
    let mut file = File::open(&path)?;
    fs::remove_file(&path)?;
    ensure_error!(File::open(&path), NotFound);
    fs::write(&path, b"another")?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    ensure_eq!(text, "still here");
    Ok(())
}

fn many_open() -> Outcome {
    let dir = TempDir::new("many_open")?;
    let mut files = Vec::new();
    for n in 0..300 {
        let mut file = File::create_new(dir.join(&n.to_string()))?;
        write!(file, "{n}")?;
        files.push(file);
    }
    drop(files);
    for n in 0..300 {
        ensure_eq!(fs::read_to_string(dir.join(&n.to_string()))?, n.to_string());
    }
    Ok(())
}

fn copy() -> Outcome {
    let dir = TempDir::new("copy")?;
    fs::write(dir.join("a"), vec![9; 100_000])?;
    let copied = fs::copy(dir.join("a"), dir.join("b"));
    ensure!(fs::read(dir.join("b"))? == vec![9; 100_000], "the copy differs");
    if copied.is_err() {
        not_on_hermit("what fs::copy ends with, setting permissions; the content is there")?;
    }
    ensure_eq!(copied?, 100_000);
    Ok(())
}

fn set_len() -> Outcome {
    let dir = TempDir::new("set_len")?;
    not_on_hermit("File::set_len")?;
    let file = File::create(dir.join("f"))?;
    file.set_len(100)?;
    ensure_eq!(file.metadata()?.len(), 100);
    Ok(())
}

fn sync() -> Outcome {
    not_on_hermit("File::sync_all")?;
    let dir = TempDir::new("sync")?;
    File::create(dir.join("f"))?.sync_all()?;
    Ok(())
}

fn try_clone() -> Outcome {
    not_on_hermit("File::try_clone")?;
    let dir = TempDir::new("try_clone")?;
    let mut file = File::create(dir.join("f"))?;
    let mut twin = file.try_clone()?;
    file.write_all(b"a")?;
    twin.write_all(b"b")?;
    ensure_eq!(fs::read(dir.join("f"))?, b"ab");
    Ok(())
}

fn is_a_directory() -> Outcome {
    let dir = TempDir::new("is_a_directory")?;
    ensure!(fs::write(dir.path(), b"x").is_err(), "a directory was written as a file");
    ensure!(fs::read(dir.path()).is_err(), "a directory was read as a file");
    ensure!(fs::remove_file(dir.path()).is_err(), "a directory was removed as a file");
    Ok(())
}
