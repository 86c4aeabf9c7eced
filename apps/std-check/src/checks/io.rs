//! Standard streams and std::io's own machinery.

use crate::check::Outcome;
use crate::{checks, ensure, ensure_eq};
use std::io::{
    self, BufRead, BufReader, BufWriter, Cursor, IsTerminal, Read, Seek, SeekFrom, Write,
};

checks!["io": stdout, stderr, streams_can_be_asked, cursor, copy, buffered, error_texts];

fn stdout() -> Outcome {
    let mut out = io::stdout().lock();
    out.flush()?;
    ensure_eq!(out.write(b"")?, 0);
    Ok(())
}

fn stderr() -> Outcome {
    io::stderr().flush()?;
    Ok(())
}

fn streams_can_be_asked() -> Outcome {
    // Any answer is correct; the call must not fail.
    let _ = (io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal());
    Ok(())
}

fn cursor() -> Outcome {
    let mut cursor = Cursor::new(vec![0u8; 4]);
    cursor.seek(SeekFrom::End(2))?;
    cursor.write_all(b"xy")?;
    ensure_eq!(cursor.into_inner(), b"\0\0\0\0\0\0xy");
    Ok(())
}

fn copy() -> Outcome {
    let data: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let mut to = Vec::new();
    ensure_eq!(io::copy(&mut Cursor::new(&data), &mut to)?, 100_000);
    ensure!(to == data, "the copy differs");
    Ok(())
}

fn buffered() -> Outcome {
    let mut writer = BufWriter::with_capacity(16, Vec::new());
    for n in 0..100 {
        writeln!(writer, "line {n}")?;
    }
    let bytes = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    let lines: Vec<String> =
        BufReader::with_capacity(7, &bytes[..]).lines().collect::<Result<_, _>>()?;
    ensure_eq!(lines.len(), 100);
    ensure_eq!(lines[99], "line 99");
    let mut half = String::new();
    (&bytes[..]).take(6).read_to_string(&mut half)?;
    ensure_eq!(half, "line 0");
    Ok(())
}

fn error_texts() -> Outcome {
    let error = std::fs::File::open("/nothing/here").err();
    let text = error.map(|e| e.to_string()).unwrap_or_default();
    ensure!(!text.is_empty(), "an error without a text");
    Ok(())
}
