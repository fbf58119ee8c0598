//! The node that a certificate is of, in the words of Kubernetes: the common name `system:node:NAME` of a kubelet's
//! client certificate. Its DNS names are not looked at: a client's certificate needs none, and nobody checks them.

use x509_parser::prelude::{FromDer, X509Certificate};

const PREFIX: &str = "system:node:";

/// The node's name, if the certificate (DER) has one. That the certificate is good is for TLS to say.
pub(super) fn node(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    // Several names would be several answers.
    let (Some(name), None) = (names.next(), names.next()) else { return None };
    let node = name.as_str().ok()?.strip_prefix(PREFIX)?;
    (!node.is_empty()).then(|| node.to_owned())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(common_name: &str) -> Vec<u8> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        parameters.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_kubelets_certificate_has_a_node() {
        assert_eq!(node(&certificate("system:node:node-1")).as_deref(), Some("node-1"));
        for other in ["system:node:", "node-1", "xsystem:node:a", ""] {
            assert_eq!(node(&certificate(other)), None, "{other}");
        }
        assert_eq!(node(b"no certificate"), None);
        assert_eq!(node(b""), None);
    }
}
