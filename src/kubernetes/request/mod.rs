//! What a request is about: the words of the API server that authentication, admission and the verbs share.
//!
//! | module | subject |
//! | - | - |
//! | [`info`] | verb, resource, namespace, name, parameters (kube-apiserver's `RequestInfo`) |
//! | [`target`] | the table of a resource, and its objects in the version asked for |
//! | [`selector`] | label and field selectors |
//! | [`names`] | names that the server makes up |
//! | [`status`] | refusals as clients see them |

pub mod info;
pub mod names;
pub mod selector;
pub mod status;
pub mod target;
