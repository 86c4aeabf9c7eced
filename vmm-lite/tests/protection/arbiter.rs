//! The arbiter of a test: a directory, or Debian's etcd on the switch.

use std::{fs, net::SocketAddr, path::PathBuf};
use tempfile::TempDir;
use vmm_lite_lab::{
    etcd::{Clients, Cluster},
    site::Site,
};

/// On the data network, so that a cut of the link between the two hosts leaves it reachable.
const IP: &str = "10.0.0.9";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    File,
    Etcd,
}

/// See the module.
#[derive(Debug)]
pub enum Arbiter {
    File { parent: TempDir, there: bool },
    Etcd { cluster: Box<Cluster>, site: Box<Site> },
}

impl Arbiter {
    /// Starts it.
    ///
    /// # Errors
    /// Without etcd.
    pub fn start(kind: Kind, site: &Site) -> vmm_lite_lab::Result<Self> {
        if kind == Kind::File {
            let parent = tempfile::tempdir().unwrap();
            fs::create_dir(parent.path().join("locks")).unwrap();
            return Ok(Self::File { parent, there: true });
        }
        vmm_lite_lab::images::installed("etcd", "etcd-server")?;
        site.switch.ip(["addr", "add", &format!("{IP}/24"), "dev", "br-data"])?;
        let at = |port| SocketAddr::new(IP.parse().unwrap(), port);
        let mut cluster = Cluster::new(vec![(at(2379), at(2380))], Clients::Plain)?;
        cluster.start_all(&|| site.switch.command("etcd"))?;
        Ok(Self::Etcd { cluster: Box::new(cluster), site: Box::new(site.clone()) })
    }

    /// As the user names it.
    pub fn name(&self) -> String {
        match self {
            Self::File { .. } => format!("file:{}", self.directory().display()),
            Self::Etcd { cluster, .. } => format!("etcd://{}", cluster.endpoints()),
        }
    }

    fn directory(&self) -> PathBuf {
        match self {
            Self::File { parent, .. } => parent.path().join("locks"),
            Self::Etcd { .. } => unreachable!("etcd has no directory that others see"),
        }
    }

    /// It dies: etcd by SIGKILL, or stopped so that its connections stay open if `silently`; a file
    /// system that is no longer mounted.
    pub fn dies(&mut self, silently: bool) {
        let directory = matches!(self, Self::File { .. }).then(|| self.directory());
        match self {
            Self::File { there, .. } => {
                let directory = directory.unwrap();
                fs::rename(&directory, directory.with_extension("gone")).unwrap();
                *there = false;
            }
            Self::Etcd { cluster, .. } if silently => cluster.pause(0).unwrap(),
            Self::Etcd { cluster, .. } => cluster.kill(0),
        }
    }

    /// It is back, with its data.
    pub fn returns(&mut self) {
        let directory = matches!(self, Self::File { .. }).then(|| self.directory());
        match self {
            Self::File { there, .. } => {
                let directory = directory.unwrap();
                if !*there {
                    fs::rename(directory.with_extension("gone"), &directory).unwrap();
                    *there = true;
                }
            }
            Self::Etcd { cluster, site } => {
                // Of these one applies: it was stopped, or it was killed.
                let _ = cluster.resume(0);
                cluster.start_all(&|| site.switch.command("etcd")).unwrap();
            }
        }
    }
}
