//! What an image is told when it starts. The words that vmm-lite puts into the PVH command line are
//! given to QEMU as `-append`.

use std::fmt::Write as _;
use vmm_lite_interface::params::{encode_argument, encode_word};

/// Network settings, environment and arguments of a guest.
#[derive(Clone, Debug, Default)]
pub struct BootParams {
    /// Name of the VM.
    pub name: Option<String>,
    /// Address with prefix length, `10.0.0.2/24`.
    pub ip: Option<String>,
    /// Default router.
    pub gateway: Option<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// The program's environment.
    pub env: Vec<(String, String)>,
    /// The program's arguments, without its name.
    pub args: Vec<String>,
}

impl BootParams {
    /// Parameters with these arguments and nothing else.
    pub fn with_args<S: Into<String>>(args: impl IntoIterator<Item = S>) -> Self {
        Self { args: args.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// The command line. `quiesce` adds the setting that makes the guest listen on its second
    /// serial port.
    #[must_use]
    pub fn to_command_line(&self, quiesce: bool) -> String {
        let mut words: Vec<String> = Vec::new();
        let mut setting = |key: &str, value: &str| {
            let mut word = String::new();
            // `=` ends the key, so a key must not contain one; the value may.
            encode_word(key.as_bytes(), &mut word).expect("a string takes everything");
            word.push('=');
            encode_word(value.as_bytes(), &mut word).expect("a string takes everything");
            words.push(word);
        };
        for (key, value) in [("name", &self.name), ("ip", &self.ip), ("gateway", &self.gateway)] {
            if let Some(value) = value {
                setting(key, value);
            }
        }
        self.dns.iter().for_each(|server| setting("dns", server));
        if quiesce {
            setting("quiesce", "uart");
        }
        self.env.iter().for_each(|(key, value)| setting(&format!("env:{key}"), value));
        let mut line = words.join(" ");
        if !self.args.is_empty() {
            write!(line, "{}--", if line.is_empty() { "" } else { " " })
                .expect("a string takes everything");
            for arg in &self.args {
                line.push(' ');
                encode_argument(arg.as_bytes(), &mut line).expect("a string takes everything");
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_lite_interface::params::{Param, decode_word, parse};

    #[test]
    fn encoded_parameters_decode_to_the_same() {
        let params = BootParams {
            name: Some("kv one".into()),
            ip: Some("10.0.0.2/24".into()),
            dns: vec!["10.0.0.1".into(), "10.0.0.3".into()],
            env: vec![("A".into(), "b = %20 c".into())],
            args: vec!["--x".into(), String::new(), "ü, y".into()],
            ..BootParams::default()
        };
        let line = params.to_command_line(true);
        let decode = |w: &str| String::from_utf8(decode_word(w).collect()).unwrap();
        let got: Vec<String> = parse(&line)
            .map(|p| match p {
                Param::Setting { key, value } => format!("{}={}", decode(key), decode(value)),
                Param::Argument(arg) => decode(arg),
            })
            .collect();
        assert_eq!(
            got,
            [
                "name=kv one",
                "ip=10.0.0.2/24",
                "dns=10.0.0.1",
                "dns=10.0.0.3",
                "quiesce=uart",
                "env:A=b = %20 c",
                "--x",
                "",
                "ü, y"
            ]
        );
        // QEMU passes `,` in -append unchanged: the argument is not an option list.
        assert!(!line.contains("  "));
    }

    #[test]
    fn no_parameters_make_an_empty_line() {
        assert_eq!(BootParams::default().to_command_line(false), "");
        assert_eq!(BootParams::with_args(["a"]).to_command_line(false), "-- a");
    }
}
