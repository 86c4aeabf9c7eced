//! From an image file to a guest that can start: checks, memory, PVH structures, command line.

mod image;
mod own_clock;
mod parameters;
mod pvh;

pub use image::{Error as ImageError, Image};
pub use own_clock::OwnClock;
pub use parameters::{Cidr, Error as ParametersError, Parameters};

use crate::memory::Writable;

/// Why an image could not be put into a guest's memory.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The image is invalid.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The parameters for the guest are invalid.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
}

/// Puts `image` and its boot parameters into `ram`.
///
/// # Errors
/// [`Error`].
pub fn load(image: &Image, parameters: &Parameters, ram: Writable<'_>) -> Result<(), Error> {
    let cmdline = parameters.cmdline()?;
    image.load(ram)?;
    pvh::write(&cmdline, ram);
    Ok(())
}
