//! What programs call: one folder for each ABI. Each function unmarshals its arguments, calls the
//! kernel, and marshals the result; nothing else happens here.

#[cfg(target_os = "hermit")]
mod hermit;
pub mod unsupported;
