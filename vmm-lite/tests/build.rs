//! `vmm-lite build` on ordinary crates outside of this workspace.

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Instant,
};

/// A crate in a directory of its own.
struct Crate {
    dir: tempfile::TempDir,
}

impl Crate {
    fn new(files: &[(&str, &str)]) -> Self {
        let this = Self { dir: tempfile::tempdir().unwrap() };
        files.iter().for_each(|(path, text)| this.write(path, text));
        this
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn build(&self, args: &[&str]) -> Output {
        vmm_lite().arg("build").args(args).current_dir(self.path()).output().unwrap()
    }

    /// The only line of JSON of a build that must succeed.
    fn built(&self, args: &[&str]) -> Value {
        let out = self.build(&[args, &["--json"]].concat());
        assert!(out.status.success(), "{}", text(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// The output of a build that must fail.
    fn fails(&self, args: &[&str], code: i32) -> String {
        let out = self.build(args);
        assert_eq!(out.status.code(), Some(code), "{}", text(&out.stderr));
        text(&out.stderr)
    }
}

fn vmm_lite() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmm-lite"));
    command.env_remove("CARGO_TARGET_DIR").env_remove("VMM_LITE_TOOLCHAIN");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const MANIFEST: &str = r#"
[package]
name = "greeter"
version = "1.0.0"
edition = "2021"
[features]
default = ["friendly"]
friendly = []
loud = []
"#;

const BUILD_SCRIPT: &str = r#"
fn main() {
    println!("cargo::rustc-env=BUILT_FOR={}", std::env::var("CARGO_CFG_TARGET_OS").unwrap());
}
"#;

const LIBRARY: &str = r#"
pub fn greeting() -> String {
    let word = if cfg!(feature = "friendly") { "hello" } else { "hm" };
    if cfg!(feature = "loud") { word.to_uppercase() } else { word.into() }
}
"#;

const PROGRAM: &str = r#"
fn main() {
    println!("{} from {}", greeter::greeting(), env!("BUILT_FOR"));
}
"#;

/// Settings that a user may have for the host's programs; each would break an image.
const HOST_CONFIG: &str = r#"
[build]
target = "x86_64-unknown-linux-gnu"
rustflags = ["-Clink-arg=-fuse-ld=no-such-linker"]
[target.x86_64-unknown-hermit]
linker = "no-such-linker"
rustflags = ["-Clink-arg=no-such-file"]
[profile.release]
lto = "fat"
"#;

fn greeter() -> Crate {
    Crate::new(&[
        ("Cargo.toml", MANIFEST),
        ("build.rs", BUILD_SCRIPT),
        ("src/lib.rs", LIBRARY),
        ("src/main.rs", PROGRAM),
    ])
}

/// The output of the image, where there is KVM.
fn run(image: &Path) -> Option<String> {
    if let Err(why) = vmm_lite_lab::privilege::kvm() {
        vmm_lite_lab::skipped("running what was built", why);
        return None;
    }
    let out = vmm_lite().arg("run").arg(image).output().unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    Some(text(&out.stdout))
}

#[test]
fn an_ordinary_crate_becomes_an_image_that_runs() {
    let greeter = greeter();
    let built = greeter.built(&[]);
    let image = greeter.path().join("greeter.img");
    assert_eq!(built["image"], "greeter.img");
    assert_eq!(built["unchanged"], false);
    assert_eq!(built["size"], fs::metadata(&image).unwrap().len());
    if let Some(said) = run(&image) {
        assert_eq!(said, "hello from hermit\n");
    }
    assert_eq!(fs::read_to_string(greeter.path().join("Cargo.toml")).unwrap(), MANIFEST);
}

#[test]
fn nothing_is_built_twice() {
    let greeter = greeter();
    let began = Instant::now();
    greeter.built(&["--profile", "dev"]);
    let (built, began) = (began.elapsed(), Instant::now());
    let again = greeter.built(&["--profile", "dev"]);
    assert_eq!(again["unchanged"], true);
    assert!(began.elapsed() < built, "{:?} after {built:?}", began.elapsed());

    greeter.write("src/main.rs", "fn main() { println!(\"changed\") }");
    assert_eq!(greeter.built(&["--profile", "dev"])["unchanged"], false);
    if let Some(said) = run(&greeter.path().join("greeter.img")) {
        assert_eq!(said, "changed\n");
    }
}

#[test]
fn the_user_chooses_the_features() {
    let greeter = greeter();
    for (args, expected) in [
        (&["--features", "loud"][..], "HELLO from hermit\n"),
        (&["--no-default-features"], "hm from hermit\n"),
        (&["--no-default-features", "--all-features"], "HELLO from hermit\n"),
    ] {
        greeter.built(&[&["--profile", "dev"], args].concat());
        if let Some(said) = run(&greeter.path().join("greeter.img")) {
            assert_eq!(said, expected);
        }
    }
}

/// Reads the CPU's clock in a function of its own, and random numbers in one that is inlined.
const OWN_CLOCK: &str = r#"
#[inline(never)]
fn ticks() -> u64 {
    // SAFETY: every CPU for this target has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}
#[inline(always)]
fn random() -> u64 {
    let word: u64;
    // SAFETY: not executed.
    unsafe { core::arch::asm!("rdrand {}", out(reg) word) };
    word
}
fn main() {
    println!("{}", ticks() > 0 && (std::env::args().count() < 99 || random() == 0));
}
"#;

#[test]
fn a_program_that_reads_clocks_of_the_cpu_is_named() {
    let greeter = greeter();
    greeter.write("src/main.rs", OWN_CLOCK);
    let out = greeter.build(&["--json"]);
    let said = text(&out.stderr);
    assert!(out.status.success(), "{said}");
    let built: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(built["own_clock"]["count"], 2, "{built}");
    let first = built["own_clock"]["first"].to_string();
    assert!(first.contains("greeter::ticks+0x") && first.contains(": rdtsc"), "{first}");
    assert!(first.contains("greeter::main+0x") && first.contains(": rdrand"), "{first}");
    assert!(said.contains("warning: greeter reads clocks of the CPU by itself, 2 times"), "{said}");
    assert!(said.contains(": rdtsc (crate greeter)"), "{said}");
    assert!(said.contains("--allow-own-clock"), "{said}");
    let image = greeter.path().join("greeter.img");
    let shown = vmm_lite().arg("inspect").arg(&image).output().unwrap();
    let shown = text(&shown.stdout);
    assert!(shown.contains("own clock     2 (") && shown.contains("greeter::ticks"), "{shown}");
    if let Some(said) = run(&image) {
        assert_eq!(said, "true\n");
    }

    // Without symbols they are still found, and the kernel's are still told apart.
    greeter.write("Cargo.toml", &format!("{MANIFEST}\n[profile.release]\nstrip = true\n"));
    let built = greeter.built(&[]);
    assert_eq!(built["own_clock"]["count"], 2, "{built}");
    assert!(built["own_clock"]["first"][0].as_str().unwrap().starts_with("0x"), "{built}");
}

#[test]
fn a_program_that_uses_std_reads_no_clock_of_the_cpu_by_itself() {
    let greeter = greeter();
    let std = "fn main() {
        let random = std::collections::HashMap::<u8, u8>::new();
        println!(\"{:?} {:?} {random:?}\", std::time::Instant::now(), std::time::SystemTime::now());
    }";
    greeter.write("src/main.rs", std);
    for strip in [false, true] {
        let profile = format!("{MANIFEST}\n[profile.release]\nstrip = {strip}\n");
        greeter.write("Cargo.toml", &profile);
        let built = greeter.built(&[]);
        // Some here are the kernel's, which this vmm-lite does not recognise as such.
        assert_eq!(built["own_clock"]["count"], 0, "strip = {strip}: {built}");
    }
}

#[test]
fn settings_for_the_host_do_not_affect_an_image() {
    let greeter = greeter();
    greeter.write(".cargo/config.toml", HOST_CONFIG);
    let mut build = vmm_lite();
    build.args(["build", "-q", "-o", "images/"]).current_dir(greeter.path());
    build.env("RUSTFLAGS", "-Clink-arg=no-such-file").env("CARGO_BUILD_TARGET", "nonsense");
    let out = build.output().unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    if let Some(said) = run(&greeter.path().join("images/greeter.img")) {
        assert_eq!(said, "hello from hermit\n");
    }
}

#[test]
fn a_program_is_chosen_by_name() {
    let two = greeter();
    two.write("src/bin/other.rs", "fn main() { println!(\"the other\") }");
    let said = two.fails(&[], 1);
    assert!(said.contains("choose with --bin: greeter, other"), "{said}");
    let said = two.fails(&["--bin", "third"], 1);
    assert!(said.contains("greeter has no program third; it has greeter, other"), "{said}");
    two.built(&["--bin", "other", "-o", "o.img", "--profile", "dev"]);
    if let Some(said) = run(&two.path().join("o.img")) {
        assert_eq!(said, "the other\n");
    }
}

#[test]
fn packages_of_a_workspace() {
    let member = |name: &str| format!("[package]\nname = \"{name}\"\nversion = \"1.0.0\"\n");
    let hello = "fn main() {}";
    let workspace = Crate::new(&[
        ("Cargo.toml", "[workspace]\nmembers = [\"a\", \"b\", \"l\"]\nresolver = \"3\"\n"),
        ("a/Cargo.toml", &member("a")),
        ("a/src/main.rs", hello),
        ("b/Cargo.toml", &member("b")),
        ("b/src/main.rs", hello),
        ("l/Cargo.toml", &member("l")),
        ("l/src/lib.rs", ""),
    ]);
    let said = workspace.fails(&[], 1);
    assert!(said.contains("choose with -p: a, b"), "{said}");
    let said = workspace.fails(&["-p", "c"], 1);
    assert!(said.contains("no package c in this workspace; it has a, b, l"), "{said}");
    let said = workspace.fails(&["l"], 1);
    assert!(said.contains("l has no program"), "{said}");
    let said = workspace.fails(&["-p", "a", "-p", "b", "-o", "one.img"], 1);
    assert!(said.contains("2 images are to be made: name a directory"), "{said}");

    let out = workspace.build(&["-p", "a", "-p", "b", "-o", "images/", "--json"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let images: Vec<Value> =
        text(&out.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(images.len(), 2);
    for built in images {
        assert!(workspace.path().join(built["image"].as_str().unwrap()).is_file());
    }
}

#[test]
fn mistakes_are_named() {
    let broken = greeter();
    let nowhere: PathBuf = "no/such/place".into();
    let said = broken.fails(&[nowhere.to_str().unwrap()], 1);
    assert!(said.contains("no/such/place is not a Rust crate"), "{said}");
    let said = broken.fails(&["--toolchain", "/nonsense"], 1);
    assert!(said.contains("the toolchain /nonsense cannot be used"), "{said}");

    broken.write("src/main.rs", "fn main() { let x: u8 = \"text\"; }");
    let said = broken.fails(&[], 101);
    assert!(said.contains("error[E0308]"), "the compiler's output is shown: {said}");
    assert!(said.contains("greeter does not compile"), "{said}");

    broken.write("Cargo.toml", "nonsense");
    let said = broken.fails(&[], 1);
    assert!(said.contains("Cargo.toml"), "{said}");
}

#[test]
fn missing_tools_are_named_with_their_packages() {
    let greeter = greeter();
    let empty = tempfile::tempdir().unwrap();
    let mut build = vmm_lite();
    build.arg("build").current_dir(greeter.path()).env("PATH", empty.path());
    let said = text(&build.output().unwrap().stderr);
    let toolchain = said.contains("rustup component add rust-src") && said.contains("rustc-web");
    // Debian's toolchain is found without a PATH; then it is the linker that is missing.
    let linker = said.contains("ld is not installed: apt-get install binutils");
    assert!(toolchain || linker, "{said}");
}

#[test]
fn the_environment_for_other_commands_is_valid_shell() {
    let greeter = greeter();
    let script = format!(
        "environment=$({} build --print-env) && eval \"$environment\" && cargo check --quiet",
        env!("CARGO_BIN_EXE_vmm-lite")
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(greeter.path()).env_remove("CARGO_TARGET_DIR");
    let out = shell.output().unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(greeter.path().join("target/x86_64-unknown-hermit").is_dir());
}
