//! Who a client certificate belongs to, and which queues its worker may serve.

use std::collections::{BTreeMap, BTreeSet};

use x509_cert::Certificate;
use x509_cert::der::asn1::{PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::CN;
use x509_cert::der::{Decode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A certificate's alternative name that begins so names a queue that its holder may serve.
const QUEUE_PREFIX: &str = "tol-queue:";
/// Stands for every certificate of the CA, or for every queue.
const ANY: &str = "*";

/// Which queues the holders of certificates may serve: `NAME=queue1,queue2`, where the name is the certificate's common
/// name or one of its alternative names that are URIs; `*` is every name, or every queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities(BTreeMap<String, BTreeSet<String>>);

impl Identities {
    /// Reads `NAME=queue1,queue2`, as `--worker-identity` takes it.
    ///
    /// # Errors
    /// With words that say what is wrong with it.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let wrong = || format!("`{text}`: expected NAME=QUEUE[,QUEUE…]");
        // A name may be a URI and hold `=`; a queue's name cannot.
        let (name, queues) = text.rsplit_once('=').ok_or_else(wrong)?;
        let queues: Vec<&str> = queues.split(',').map(str::trim).collect();
        if name.is_empty() || queues.iter().any(|queue| queue.is_empty()) {
            return Err(wrong());
        }
        self.0.entry(name.to_owned()).or_default().extend(queues.into_iter().map(str::to_owned));
        Ok(())
    }

    /// Which of these queues a certificate does not allow, in words; none if it allows all.
    pub(crate) fn refusal<'q>(&self, holder: &Holder, queues: impl IntoIterator<Item = &'q String>) -> Option<String> {
        let mut allowed: BTreeSet<&str> = holder.queues.iter().map(String::as_str).collect();
        let names = holder.names.iter().map(String::as_str).chain([ANY]);
        allowed.extend(names.filter_map(|name| self.0.get(name)).flatten().map(String::as_str));
        if allowed.contains(ANY) {
            return None;
        }
        let refused = queues.into_iter().find(|queue| !allowed.contains(queue.as_str()))?;
        let name = holder.names.first().map_or("(without a name)", String::as_str);
        Some(format!(
            "the certificate of `{name}` does not allow queue `{refused}`: give it the alternative name \
             URI:{QUEUE_PREFIX}{refused}, or start the gateway with --worker-identity '{name}={refused}'"
        ))
    }
}

/// Whom a certificate belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The common name first, then the alternative names that are URIs.
    pub names: Vec<String>,
    /// The queues that the certificate itself names.
    pub queues: BTreeSet<String>,
}

impl Holder {
    /// Reads a certificate that TLS has checked. What cannot be read allows nothing.
    pub(crate) fn of(der: &[u8]) -> Self {
        let mut holder = Self::default();
        let Ok(certificate) = Certificate::from_der(der) else { return holder };
        let certificate = certificate.tbs_certificate;
        for attribute in certificate.subject.0.iter().flat_map(|part| part.0.iter()) {
            let value = &attribute.value;
            let text = match value.tag() {
                Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok().map(|text| text.to_string()),
                _ => value.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.to_string()),
            };
            if attribute.oid == CN {
                holder.names.extend(text);
            }
        }
        if let Ok(Some((_, alternative))) = certificate.get::<SubjectAltName>() {
            for name in alternative.0 {
                let GeneralName::UniformResourceIdentifier(uri) = name else { continue };
                match uri.as_str().strip_prefix(QUEUE_PREFIX) {
                    Some(queue) => drop(holder.queues.insert(queue.to_owned())),
                    None => holder.names.push(uri.as_str().to_owned()),
                }
            }
        }
        holder
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn holder(name: &str, uris: &[&str]) -> Holder {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = uris.iter().map(|&uri| SanType::URI(uri.try_into().unwrap())).collect();
        Holder::of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    fn check(identities: &[&str], holder: &Holder, queues: &[&str], refused: Option<&str>) {
        let mut mapping = Identities::default();
        for text in identities {
            mapping.add(text).unwrap();
        }
        let queues: Vec<String> = queues.iter().map(|&queue| queue.to_owned()).collect();
        let words = mapping.refusal(holder, &queues);
        match (&words, refused) {
            (None, None) => {}
            (Some(words), Some(queue)) => assert!(words.contains(&format!("allow queue `{queue}`")), "{words}"),
            _ => panic!("{words:?}, expected {refused:?}"),
        }
    }

    #[test]
    fn a_certificate_is_bound_to_its_queues() {
        let builder = holder("builder", &["spiffe://x/builder", "tol-queue:gpu"]);
        assert_eq!(builder.names, ["builder", "spiffe://x/builder"]);
        check(&[], &builder, &["gpu"], None);
        check(&[], &builder, &["gpu", "default"], Some("default"));
        check(&["builder=default"], &builder, &["gpu", "default"], None);
        check(&["spiffe://x/builder=a,b"], &builder, &["b", "a"], None);
        check(&["other=default"], &builder, &["default"], Some("default"));
        check(&["*=default"], &builder, &["default"], None);
        check(&["builder=*"], &builder, &["anything"], None);
        check(&[], &Holder::of(b"no certificate"), &["default"], Some("default"));
    }

    #[test]
    fn a_mapping_that_says_nothing_is_refused() {
        for text in ["", "name", "=a", "name=", "name=a,,b"] {
            assert!(Identities::default().add(text).unwrap_err().contains("NAME=QUEUE"), "{text}");
        }
    }
}
