//! `vmm-lite inspect`.

use migrate::snapshot::{Error, MAJOR};
use serde_json::json;
use std::{os::unix::fs::FileExt as _, path::PathBuf, process::ExitCode};
use vmm::{
    boot::{Image, OwnClock},
    kvm::Host,
    snapshot::{load, operations::hex, saved_vm::SavedVm},
};

/// Show what is in a snapshot, after verifying all of it, or in an image
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  vmm-lite inspect kv.snap\n  vmm-lite inspect kv.snap --json | jq \
        .memory_bytes\n  vmm-lite inspect kv.img"
)]
pub struct Args {
    /// The snapshot, or image
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// If the file is not a snapshot, or is damaged.
pub fn run(args: Args) -> super::Result {
    let unreadable = |e| format!("cannot read {}: {e}", args.file.display());
    let file = files::open(&args.file).map_err(unreadable)?;
    let mut magic = [0; 4];
    if file.read_at(&mut magic, 0).map_err(unreadable)? == 4 && magic == *b"\x7fELF" {
        return image(&args);
    }
    let snapshot = load::open(file)?;
    let (mut saved, mut zero) = (0_u64, 0_u64);
    snapshot.each(|_, content, _| {
        match content {
            migrate::snapshot::Content::Data { .. } => saved += 1,
            _ => zero += 1,
        }
        Ok::<_, Error>(())
    })?;
    let header = snapshot.header();
    let guest = SavedVm::decode(snapshot.identity(), snapshot.state())?;
    let identity = &guest.manifest.identity;
    let here = Host::open().and_then(|host| host.features()).ok();
    let missing = here.map(|here| guest.manifest.features.missing_from(&here));
    let value = json!({
        "version": format!("{MAJOR}.{}", header.minor),
        "id": hex(&header.id),
        "base": header.base.map(|base| hex(&base.id)),
        "taken_ns": header.notes.map(|n| n.taken_ns),
        "quiescent": header.notes.map(|n| n.quiescent),
        "name": identity.name,
        "memory_bytes": header.memory_size,
        "file_bytes": header.file_size,
        "pages_saved": saved,
        "pages_zero_marked": zero,
        "pages_zero": header.notes.map(|n| n.pages_zero),
        "pages_dont_care": header.notes.map(|n| n.pages_dont_care),
        "interface_version": identity.interface_version,
        "mac": identity.nets.first().map(|n| vmm::vm::mac_text(n.mac)),
        "ip": identity.nets.first().and_then(|n| n.ip).map(|ip| ip.to_string()),
        "uptime_ns": guest.state.clock.mono_ns,
        "missing_features": missing,
        "own_clock": own_clock_json(&identity.own_clock),
    });
    if args.json {
        println!("{value}");
        return Ok(ExitCode::SUCCESS);
    }
    let text = |key: &str| match &value[key] {
        serde_json::Value::Null => "-".to_owned(),
        // The name in the file is not trusted; a terminal would obey control characters in it.
        serde_json::Value::String(text) => text.escape_debug().to_string(),
        other => other.to_string(),
    };
    println!("{}: a snapshot of {}, complete and undamaged", args.file.display(), text("name"));
    println!("id            {}", text("id"));
    if header.base.is_some() {
        println!("difference to {}", text("base"));
    }
    println!("format        {}", text("version"));
    println!("memory        {} MiB", header.memory_size >> 20);
    println!("file          {} KiB, {saved} pages", header.file_size / 1024);
    println!("network       {} {}", text("mac"), text("ip"));
    println!("running for   {:.1} s", guest.state.clock.mono_ns as f64 / 1e9);
    println!("own clock     {}", identity.own_clock);
    match missing.as_deref() {
        Some([]) => println!("this host     can run it"),
        Some(missing) => println!("this host     lacks {}", missing.join(", ")),
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows an image.
fn image(args: &Args) -> super::Result {
    let image = Image::open(&args.file)?;
    if args.json {
        let value = json!({
            "interface_version": image.interface_version(),
            "memory_needed": image.memory_needed(),
            "own_clock": own_clock_json(image.own_clock()),
        });
        println!("{value}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}: an image", args.file.display());
    println!("interface     {}", image.interface_version());
    println!("memory        {} MiB at least", image.memory_needed().div_ceil(1 << 20));
    println!("own clock     {}", image.own_clock());
    Ok(ExitCode::SUCCESS)
}

/// `null` where nobody has looked.
fn own_clock_json(own_clock: &OwnClock) -> serde_json::Value {
    match own_clock.count {
        Some(count) => json!({ "count": count, "first": own_clock.first }),
        None => serde_json::Value::Null,
    }
}
