//! Authorities, certificates and keys for tests, made by openssl in a directory of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that goes away with its tests.
pub struct Material(PathBuf);

impl Material {
    /// With an authority `ca`.
    pub fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("qanat-tls-{}-{serial}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let material = Self(dir);
        material.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
             -subj /CN=authority-{serial} -keyout ca.key -out ca.crt"
        ));
        material
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// `name.crt` and `name.key` for DNS names and addresses, issued by the authority.
    pub fn issue(&self, name: &str, alternatives: &str) {
        self.issue_with(name, alternatives, "ec -pkeyopt ec_paramgen_curve:P-256");
    }

    pub fn issue_with(&self, name: &str, alternatives: &str, kind: &str) {
        self.openssl(&format!(
            "req -newkey {kind} -nodes -subj /O=tests/CN={name} -keyout {name}.key -out {name}.csr"
        ));
        std::fs::write(
            self.0.join(format!("{name}.ext")),
            format!("subjectAltName={alternatives}\n"),
        )
        .unwrap();
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
             -extfile {name}.ext -out {name}.crt"
        ));
    }

    pub fn openssl(&self, words: &str) {
        let done = Command::new("openssl")
            .args(words.split_whitespace())
            .current_dir(&self.0)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "openssl {words}: {said}");
    }
}

impl Drop for Material {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
