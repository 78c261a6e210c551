//! The issuer: Microsoft Entra ID v2.0 for one tenant, offline.
//!
//! [`Directory`] holds who and what there is (users, groups, applications) with stable object
//! ids; [`Issuer`] serves discovery, keys, sign-in and tokens over HTTPS; others meet it over
//! that protocol alone, verifying tokens with [`aksim_runtime::oidc`].
//!
//! What differs from Entra ID, on purpose:
//! * endpoints meant for a browser are announced at `https://localhost:PORT`, since the browser
//!   of this machine would find the real Entra ID under the Azure name;
//! * consent is never asked, every application may ask for every scope that exists;
//! * `groups` is always in the tokens of users (in Entra ID: `groupMembershipClaims`), without overage;
//! * tokens for Microsoft's own resources have version 2.0 and keep the requested URI as `aud`;
//! * Microsoft Graph is `/oidc/userinfo` and `/v1.0/me`.
//!
//! Not emulated, answered with Entra's error: on-behalf-of, federated credentials, implicit
//! access tokens, multi-factor, conditional access, guests, B2C.

mod assertion;
mod codes;
mod directory;
mod error;
mod issuer;
mod keys;
mod scope;
mod seal;
mod server;
mod specs;
mod tokens;
mod wellknown;

pub use directory::{Application, Directory, Group, ObjectIds, Tenant, User};
pub use issuer::{IdentityConfig, IdentityError, Issuer, IssuerHandle};
pub use specs::{ApplicationKind, ApplicationSpec, DEVELOPMENT_PASSWORD, DirectorySpec, GroupSpec, UserSpec};
