use super::*;

const HOLDER: &str = "0123456789abcdef0123456789abcdef";
const NETWORK: &str = "fedcba98765432100123456789abcdef";

const ROLES: [Role; 4] = [Role::Server, Role::Node, Role::Client, Role::Admin];

#[test]
fn an_identity_survives_being_a_name() {
    for role in ROLES {
        let network = NetworkId::random();
        let identity = Identity { network, role, holder: HolderId::random(), user: None };
        assert_eq!(Identity::from_dns_name(&identity.dns_name()), Ok(identity));
    }
}

#[test]
fn a_name_holds_holder_role_and_network_in_this_order() {
    let identity = Identity::from_dns_name(&format!("{HOLDER}.admin.{NETWORK}.dkv")).unwrap();
    assert_eq!(identity.holder.0.simple().to_string(), HOLDER);
    assert_eq!(identity.network.0.simple().to_string(), NETWORK);
    assert_eq!(identity.role, Role::Admin);
}

#[test]
fn every_other_spelling_is_refused() {
    let good = format!("{HOLDER}.node.{NETWORK}.dkv");
    assert!(Identity::from_dns_name(&good).is_ok());
    let hyphenated = Uuid::parse_str(HOLDER).unwrap().hyphenated().to_string();
    let braced = Uuid::parse_str(HOLDER).unwrap().braced().to_string();
    let spellings = [
        String::new(),
        good.to_uppercase(),
        good.replace("abcdef", "ABCDEF"),
        good.replace("node", "Node"),
        good.replace("dkv", "DKV"),
        format!("{hyphenated}.node.{NETWORK}.dkv"),
        format!("{HOLDER}.node.{hyphenated}.dkv"),
        format!("{braced}.node.{NETWORK}.dkv"),
        format!("urn:uuid:{hyphenated}.node.{NETWORK}.dkv"),
        format!("{HOLDER}.root.{NETWORK}.dkv"),
        format!("{HOLDER}..{NETWORK}.dkv"),
        format!("{HOLDER}.node.{NETWORK}"),
        format!("{HOLDER}.node.{NETWORK}."),
        format!("{HOLDER}.node.{NETWORK}.com"),
        format!("{HOLDER}.node.{NETWORK}.dkv."),
        format!("{HOLDER}.node.{NETWORK}.dkv.com"),
        format!("{HOLDER}.node.{NETWORK}.com.dkv"),
        format!("www.{good}"),
        format!("*.node.{NETWORK}.dkv"),
        format!(" {good}"),
        format!("{good}\0"),
        format!("{}.node.{NETWORK}.dkv", &HOLDER[1..]),
        format!("{HOLDER}0.node.{NETWORK}.dkv"),
        format!("{}.node.{NETWORK}.dkv", HOLDER.replace('a', "g")),
    ];
    for name in spellings {
        assert_eq!(Identity::from_dns_name(&name), Err(InvalidIdentity), "{name:?}");
    }
}

#[test]
fn only_a_node_is_a_node() {
    let node = NodeId::random();
    let identity = Identity::node(NetworkId::random(), node);
    for role in ROLES {
        let expected = (role == Role::Node).then_some(node);
        assert_eq!(Identity { role, ..identity }.as_node(), expected, "{role}");
    }
}

#[test]
fn a_role_has_one_name_everywhere() {
    for role in ROLES {
        assert_eq!(role.as_str().parse(), Ok(role));
        assert_eq!(role.to_string(), role.as_str());
        assert_eq!(format!("{role:>8}").len(), 8);
    }
    for text in ["", "Node", " node", "node ", "nodes", "root"] {
        assert_eq!(text.parse::<Role>(), Err(InvalidIdentity), "{text:?}");
    }
}
