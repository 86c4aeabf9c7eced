//! Arguments, environment, and what the program may query about its system.

use crate::check::Outcome;
use crate::{checks, ensure, ensure_eq};
use std::env;
use std::ffi::OsString;

checks!["env": args, set_and_remove, vars_list_what_is_set, temp_dir, current_dir, consts];

fn args() -> Outcome {
    let args: Vec<OsString> = env::args_os().collect();
    ensure!(!args.is_empty(), "there is not even the program's name in the arguments");
    ensure_eq!(env::args().count(), args.len());
    Ok(())
}

fn set_and_remove() -> Outcome {
    const NAME: &str = "STD_CHECK_VARIABLE";
    // SAFETY: checks run one at a time, and no other thread of this program reads the environment
    // meanwhile.
    unsafe { env::set_var(NAME, "a=b ü") };
    ensure_eq!(env::var(NAME).as_deref(), Ok("a=b ü"));
    // SAFETY: as above.
    unsafe { env::remove_var(NAME) };
    ensure_eq!(env::var(NAME), Err(env::VarError::NotPresent));
    Ok(())
}

fn vars_list_what_is_set() -> Outcome {
    for (key, value) in env::vars_os() {
        ensure_eq!(env::var_os(&key), Some(value));
    }
    Ok(())
}

fn temp_dir() -> Outcome {
    let dir = env::temp_dir();
    ensure!(dir.is_absolute(), "{} is not absolute", dir.display());
    Ok(())
}

fn current_dir() -> Outcome {
    let dir = env::current_dir()?;
    ensure!(dir.is_absolute(), "{} is not absolute", dir.display());
    Ok(())
}

fn consts() -> Outcome {
    ensure_eq!(env::consts::ARCH, "x86_64");
    Ok(())
}
