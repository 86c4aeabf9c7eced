//! Searches the memory of a process for a private key, in every form it may have.

use base64::{Engine as _, engine::general_purpose};
use ring::digest::{SHA512, digest};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
};

/// Bytes that are searched for at once. The allocator overwrites the first 16 of a freed block.
const PIECE: usize = 16;
/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// Pieces of a secret, each of which reveals it.
pub struct Needles {
    pieces: Vec<(&'static str, Vec<u8>)>,
    /// By the first two bytes: whether a piece begins with them.
    begins: Vec<bool>,
}

impl Needles {
    /// The pieces of the private keys in these identity directories.
    pub fn of<'p>(dirs: impl IntoIterator<Item = &'p Path>) -> Self {
        let mut this = Self { pieces: Vec::new(), begins: vec![false; 1 << 16] };
        for dir in dirs {
            this.add(&fs::read_to_string(dir.join("key.pem")).unwrap());
        }
        this
    }

    fn add(&mut self, pem: &str) {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let der = der.secret_pkcs8_der();
        // RFC 8410: an octet string in an octet string.
        let at = der.windows(4).position(|bytes| bytes == [4, 34, 4, 32]).unwrap() + 4;
        let seed = &der[at..at + 32];
        self.cut("the seed, raw or in PKCS #8", seed);
        // A library's expanded form: the scalar and the prefix of nonces (RFC 8032, 5.1.5).
        let expanded = digest(&SHA512, seed);
        let (scalar, prefix) = expanded.as_ref().split_at(32);
        let mut scalar = scalar.to_vec();
        self.cut("the expanded key, not clamped", &scalar);
        scalar[0] &= 248;
        scalar[31] = scalar[31] & 63 | 64;
        self.cut("the scalar", &scalar);
        self.cut("the prefix of nonces", prefix);
        // The text depends on the seed's offset modulo three, and its ends on the neighbors.
        for skip in 0..3 {
            let shifted = [&[0; 3][..skip], seed].concat();
            let text = general_purpose::STANDARD.encode(&shifted).into_bytes();
            let inner = &text[if skip == 0 { 0 } else { 4 }..40];
            self.cut("base64", inner);
            let url: Vec<u8> = inner
                .iter()
                .map(|c| match c {
                    b'+' => b'-',
                    b'/' => b'_',
                    c => *c,
                })
                .collect();
            self.cut("base64 for addresses", &url);
        }
        let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        self.cut("hexadecimal", hex.as_bytes());
        self.cut("hexadecimal", hex.to_uppercase().as_bytes());
        let listed = seed.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        self.cut("a list of numbers", listed.as_bytes());
    }

    fn cut(&mut self, what: &'static str, bytes: &[u8]) {
        for piece in bytes.chunks_exact(PIECE) {
            self.begins[usize::from(u16::from_ne_bytes([piece[0], piece[1]]))] = true;
            self.pieces.push((what, piece.to_vec()));
        }
    }

    /// The pieces found in a stretch of memory.
    pub fn within(&self, memory: &[u8]) -> Vec<&'static str> {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(&[one, two]) = memory.get(at..at + 2).and_then(|two| two.first_chunk()) {
            // Most of a guest's memory is zero, and no piece is.
            if one == 0 && memory[at..].first_chunk() == Some(&[0; 4096]) {
                at += 4096 - PIECE;
            } else if self.begins[usize::from(u16::from_ne_bytes([one, two]))] {
                let is = |piece: &&(_, Vec<u8>)| memory[at..].starts_with(&piece.1);
                found.extend(self.pieces.iter().filter(is).map(|(what, _)| *what));
            }
            at += 1;
        }
        found
    }

    /// The pieces found in the memory of a process, and where; and the number of bytes searched.
    pub fn in_process(&self, pid: u32) -> (Vec<String>, usize) {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let (mut found, mut searched) = (Vec::new(), 0);
        let mut buffer = vec![0; CHUNK + PIECE];
        for map in maps.lines().filter(|map| map.split(' ').nth(1).unwrap().starts_with('r')) {
            let (from, to) = map.split(' ').next().unwrap().split_once('-').unwrap();
            let [mut at, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).unwrap());
            while at < to {
                let most = (to - at).min(buffer.len() as u64) as usize;
                // Pages of a device, or past the end of a file, cannot be read.
                let Ok(n @ 1..) = memory.read_at(&mut buffer[..most], at) else {
                    at += 4096;
                    continue;
                };
                let here = self.within(&buffer[..n]);
                found.extend(here.into_iter().map(|what| format!("{what} in {map}")));
                searched += n;
                // A piece may lie across two reads.
                at += if n == most && at + n as u64 != to { n - PIECE } else { n } as u64;
            }
        }
        (found, searched)
    }

    /// Asserts that a process has none of the pieces.
    #[track_caller]
    pub fn are_not_in(&self, pid: u32, when: &str) {
        let (found, searched) = self.in_process(pid);
        assert!(found.is_empty(), "{when}, process {pid}: {found:#?}");
        // At least the guest's memory.
        assert!(searched > 1 << 20, "{when}, process {pid}: only {searched} bytes were read");
    }
}

/// A key is found in every form. `signers` tests that a key is found in a process.
#[test]
fn a_key_that_is_there_is_found() {
    use vmm::identity::IdentityDir;
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("identity");
    let dir = IdentityDir::find(Some(path.clone()));
    let other = IdentityDir::find(Some(top.path().join("other")));
    dir.init(10).unwrap();
    other.init(10).unwrap();
    let needles = Needles::of([&*path]);
    let pem = fs::read(path.join("key.pem")).unwrap();
    let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).unwrap();
    let der = der.secret_pkcs8_der().to_vec();
    let json = serde_json::json!({ "key": String::from_utf8(pem.clone()).unwrap() }).to_string();
    let seed = der[16..48].to_vec();
    let url = general_purpose::URL_SAFE_NO_PAD.encode(&seed).into_bytes();
    let hex: String = seed.iter().map(|byte| format!("{byte:02X}")).collect();
    let listed = serde_json::to_vec(&seed).unwrap();
    let freed = [&[0; 16], &seed[16..]].concat();
    for form in [&pem, &der, &json.into_bytes(), &seed, &url, hex.as_bytes(), &listed, &freed] {
        assert!(!needles.within(form).is_empty(), "{:?}", String::from_utf8_lossy(form));
    }
    let another = fs::read(other.path().join("key.pem")).unwrap();
    assert!(needles.within(&another).is_empty());
}
