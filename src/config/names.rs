//! The default nickname: the user's name, as far as it may stand on a card.

use peer_exchange::check_name;

use super::Environment;

/// The user's name without the characters that a nickname must not hold, else `node`.
pub(super) fn of_user(environment: &Environment) -> String {
    let user = environment.get("USER").or_else(|| environment.get("LOGNAME")).unwrap_or_default();
    let mut name = String::new();
    for char in user.chars() {
        name.push(char);
        if check_name(&name).is_err() {
            name.pop();
        }
    }
    if name.is_empty() { "node".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_name_is_made_to_fit() {
        let user = |name: &str| of_user(&Environment::from_iter([("USER", name)]));
        assert_eq!(user("ann"), "ann");
        assert_eq!(user("DOMAIN\\ann marie"), "DOMAINannmarie");
        assert_eq!(user("//"), "node");
        assert_eq!(user(&"漢".repeat(40)), "漢".repeat(21));
        assert_eq!(of_user(&Environment::from_iter([("LOGNAME", "log")])), "log");
        assert_eq!(of_user(&Environment::default()), "node");
    }
}
