//! Enums whose variants have names, each said once.

/// Declares an enum from lines `Variant = "name"`, where the name is what configurations, files and
/// tables call the variant: with `ALL`, `name`, `Display`, `FromStr` (whose error lists the names),
/// serde and the JSON schema. The text after the enum's own name is what errors call the choice.
macro_rules! named {
    (
        $(#[$meta:meta])*
        pub enum $Enum:ident: $choice:literal {
            $($(#[$doc:meta])* $Variant:ident = $name:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $Enum {
            $($(#[$doc])* #[serde(rename = $name)] $Variant,)*
        }

        impl $Enum {
            /// Every one there is.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$Variant),*];

            /// The name in configurations, files and tables.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$Variant => $name,)*
                }
            }
        }

        impl std::fmt::Display for $Enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $Enum {
            type Err = $crate::error::ConfigError;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                Self::ALL.into_iter().find(|known| known.name() == name).ok_or(
                    $crate::error::ConfigError::Option {
                        option: $choice,
                        value: format!("\"{name}\""),
                        expected: $crate::names::one_of!($($name),*),
                    },
                )
            }
        }
    };
}
pub(crate) use named;

/// `"one of a, b, c"` from literals.
macro_rules! one_of {
    ($first:literal $(, $rest:literal)*) => { concat!("one of ", $first $(, ", ", $rest)*) };
}
pub(crate) use one_of;
