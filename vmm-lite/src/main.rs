//! The `vmm-lite` program. See `vmm-lite --help`.

fn main() -> std::process::ExitCode {
    vmm_lite::cli::main()
}
