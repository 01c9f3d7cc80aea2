//! Authorities, and what they vouch for.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};

/// One that vouches for others.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The files of a certificate.
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Its own certificate, as a file.
    pub fn file(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, self.issuer.pem()).unwrap();
        path
    }

    /// A certificate for a server at 127.0.0.1.
    pub fn server(&self, folder: &Path) -> Files {
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth, folder, "server")
    }

    /// A certificate for a worker of this name, which may serve these queues.
    pub fn worker(&self, folder: &Path, name: &str, queues: &[&str]) -> Files {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names =
            queues.iter().map(|queue| SanType::URI(format!("tol-queue:{queue}").try_into().unwrap())).collect();
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth, folder, name)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose, folder: &Path, name: &str) -> Files {
        params.extended_key_usages = vec![usage];
        let pair = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&pair, &self.issuer).unwrap();
        let files = Files { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, pair.serialize_pem()).unwrap();
        files
    }
}
