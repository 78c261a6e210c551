//! Who asks, and whether they may.
//!
//! | module | subject |
//! | - | - |
//! | [`user`] | the user of a request |
//! | [`authenticate`] | client certificates, service-account tokens, Entra tokens |
//! | [`tokens`] | service-account tokens: signing, verifying, the key set |
//! | [`rbac`] | the RBAC authorizer |
//! | [`escalation`] | nobody grants what they do not have |

pub mod authenticate;
pub mod escalation;
pub mod rbac;
pub mod tokens;
pub mod user;

pub use authenticate::Authenticator;
pub use rbac::{Attributes, Authorizer};
pub use tokens::TokenIssuer;
pub use user::User;
