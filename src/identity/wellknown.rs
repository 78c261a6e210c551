//! Microsoft's own applications that clients expect in every tenant, as data.

/// An application of Microsoft.
pub(super) struct WellKnown {
    pub name: &'static str,
    pub client_id: &'static str,
    /// Identifier URIs, without trailing slash.
    pub identifier_uris: &'static [&'static str],
    /// Delegated permissions; empty: any that is asked for.
    pub scopes: &'static [&'static str],
    /// Whether it signs users in itself, as a public client at `http://localhost`.
    pub client: bool,
}

/// Client id of Microsoft Graph, the resource of scopes that name none.
pub(super) const GRAPH: &str = "00000003-0000-0000-c000-000000000000";

const fn resource(
    name: &'static str,
    client_id: &'static str,
    identifier_uris: &'static [&'static str],
    scopes: &'static [&'static str],
) -> WellKnown {
    WellKnown { name, client_id, identifier_uris, scopes, client: false }
}

const fn client(name: &'static str, client_id: &'static str) -> WellKnown {
    WellKnown { name, client_id, identifier_uris: &[], scopes: &["user_impersonation"], client: true }
}

/// All of them.
pub(super) const WELL_KNOWN: &[WellKnown] = &[
    resource("Microsoft Graph", GRAPH, &["https://graph.microsoft.com"], &[]),
    resource("Azure Kubernetes Service AAD Server", "6dae42f8-4368-4678-94ff-3960e28e3630", &[], &["user.read"]),
    resource(
        "Windows Azure Service Management API",
        "797f4846-ba00-4fd7-ba43-dac1f8f63013",
        &["https://management.azure.com", "https://management.core.windows.net"],
        &["user_impersonation"],
    ),
    resource(
        "Azure Container Registry",
        "6a0ec4d3-30cb-4a83-91c0-ae56bc0e3d26",
        &["https://containerregistry.azure.net"],
        &["user_impersonation"],
    ),
    resource(
        "Azure DevOps",
        "499b84ac-1321-427f-aa17-267ca6975798",
        &["https://app.vssps.visualstudio.com"],
        &["user_impersonation"],
    ),
    resource(
        "Azure OSSRDBMS Database",
        "123cd850-d9df-40bd-94d5-c9f07b7fa203",
        &["https://ossrdbms-aad.database.windows.net"],
        &["user_impersonation"],
    ),
    resource(
        "Azure Key Vault",
        "cfa8b339-82a2-471a-a3c9-0fc0be7a4093",
        &["https://vault.azure.net"],
        &["user_impersonation"],
    ),
    resource(
        "Azure Storage",
        "e406a681-f3d4-42a8-90b6-c2b029497af1",
        &["https://storage.azure.com"],
        &["user_impersonation"],
    ),
    client("Azure Kubernetes Service AAD Client", "80faf920-1908-4b52-b5ef-a8e7bedfc67a"),
    client("Microsoft Azure CLI", "04b07795-8ddb-461a-bbee-02f9e1bf7b46"),
    client("Microsoft Azure PowerShell", "1950a258-227b-4e31-a9cf-717495945fc2"),
];
