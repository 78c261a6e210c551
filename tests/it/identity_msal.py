"""Signs in at the issuer with Microsoft's own library, unmodified; only DNS is redirected.

usage: identity_msal.py CA PORT TENANT CLIENT_ID SECRET KEY CERTIFICATE   (prints one JSON object)
"""

import html.parser
import json
import re
import sys
from urllib.parse import parse_qs, urljoin, urlsplit

import msal
import requests
import urllib3.util.connection as connection

CA, PORT, TENANT, CLIENT_ID, SECRET, KEY, CERTIFICATE = sys.argv[1:]
AUTHORITY = f"https://login.microsoftonline.com/{TENANT}"
AZURE_CLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
AKS = "6dae42f8-4368-4678-94ff-3960e28e3630"

original = connection.create_connection


def create_connection(address, *args, **kwargs):
    host, port = address
    if host.endswith("microsoftonline.com") or host == "graph.microsoft.com":
        host, port = "127.0.0.1", int(PORT)
    return original((host, port), *args, **kwargs)


connection.create_connection = create_connection


def session():
    made = requests.Session()
    made.verify = CA
    made.trust_env = False
    return made


class Forms(html.parser.HTMLParser):
    """The forms of a page with their hidden fields and account buttons."""

    def __init__(self, page):
        super().__init__()
        self.forms = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        if tag == "form":
            self.forms.append({"action": a["action"], "fields": {}, "accounts": []})
        elif tag == "input" and a.get("type") == "hidden":
            self.forms[-1]["fields"][a["name"]] = a["value"]
        elif tag == "button" and a.get("name") == "account":
            self.forms[-1]["accounts"].append(a["value"])


def ok(result, what):
    if "access_token" not in result:
        sys.exit(f"{what}: {json.dumps(result)}")
    return result


def client_credentials():
    app = msal.ConfidentialClientApplication(
        CLIENT_ID, authority=AUTHORITY, client_credential=SECRET, http_client=session())
    token = ok(app.acquire_token_for_client([f"api://{CLIENT_ID}/.default"]), "client credentials")
    again = app.acquire_token_for_client([f"api://{CLIENT_ID}/.default"])
    assert again["access_token"] == token["access_token"], "the token was not cached"
    wrong = msal.ConfidentialClientApplication(
        CLIENT_ID, authority=AUTHORITY, client_credential="wrong", http_client=session())
    refused = wrong.acquire_token_for_client([f"api://{CLIENT_ID}/.default"])
    return {"token": token["access_token"], "refused": refused["error_codes"]}


def certificate():
    credential = {"private_key": open(KEY).read(), "public_certificate": open(CERTIFICATE).read()}
    app = msal.ConfidentialClientApplication(
        CLIENT_ID, authority=AUTHORITY, client_credential=credential, http_client=session())
    return ok(app.acquire_token_for_client([f"api://{CLIENT_ID}/.default"]), "certificate")["access_token"]


def authorization_code():
    app = msal.PublicClientApplication(AZURE_CLI, authority=AUTHORITY, http_client=session())
    flow = app.initiate_auth_code_flow(
        [f"{AKS}/.default"], redirect_uri="http://localhost:54321", prompt="select_account")
    browser = session()
    page = browser.get(flow["auth_uri"], allow_redirects=False)
    assert page.status_code == 200, page.text
    form = Forms(page.text).forms[1]
    fields = dict(form["fields"], login=f"olga@{TENANT}", passwd="s3cret & more")
    answer = browser.post(urljoin(page.url, form["action"]), data=fields, allow_redirects=False)
    assert answer.status_code == 303, answer.text
    location = urlsplit(answer.headers["location"])
    assert location.netloc == "localhost:54321", location
    response = {key: values[0] for key, values in parse_qs(location.query).items()}
    token = ok(app.acquire_token_by_auth_code_flow(flow, response), "authorization code")
    accounts = app.get_accounts()
    silent = ok(app.acquire_token_silent([f"{AKS}/.default"], accounts[0], force_refresh=True), "refresh")
    return {
        "token": token["access_token"],
        "refreshed": silent["access_token"],
        "id_token_claims": token["id_token_claims"],
        "account": accounts[0]["username"],
    }


def device_code():
    app = msal.PublicClientApplication(AZURE_CLI, authority=AUTHORITY, http_client=session())
    flow = app.initiate_device_flow([f"{AKS}/.default"])
    browser = session()
    page = browser.get(flow["verification_uri"])
    form = Forms(page.text).forms[0]
    page = browser.post(urljoin(page.url, form["action"]), data=dict(form["fields"], otc=flow["user_code"]))
    form = Forms(page.text).forms[0]
    account = next(name for name in form["accounts"] if name.startswith("ada@"))
    done = browser.post(urljoin(page.url, form["action"]), data=dict(form["fields"], account=account))
    assert done.status_code == 200 and re.search("signed in", done.text), done.text
    return ok(app.acquire_token_by_device_flow(flow), "device code")["access_token"]


def password():
    app = msal.PublicClientApplication(AZURE_CLI, authority=AUTHORITY, http_client=session())
    name = f"olga@{TENANT}"
    return ok(app.acquire_token_by_username_password(name, "s3cret & more", ["User.Read"]), "password")["access_token"]


def graph(token):
    answer = session().get("https://graph.microsoft.com/v1.0/me", headers={"Authorization": f"Bearer {token}"})
    return answer.json()["userPrincipalName"]


print(json.dumps({
    "client_credentials": client_credentials(),
    "certificate": certificate(),
    "authorization_code": authorization_code(),
    "device_code": device_code(),
    "graph": graph(password()),
}))
