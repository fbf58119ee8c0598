//! What the options say of the agent's token.

use konnectivity_process::{check, problems::Problems};

use crate::{options::Options, token::TokenFile};

/// The token's file, if there is to be a token.
pub(super) fn check(options: &Options, problems: &mut Problems) -> Option<TokenFile> {
    let setting = "service-account-token-path";
    check::file(problems, setting, &options.service_account_token_path).map(TokenFile::new)
}
