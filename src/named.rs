//! Enums of names on the wire.

/// An enum with a text beside each variant, and what gives the texts: `const ALL;` lists the variants in
/// their order, `const fn as_str;` is the text of one.
macro_rules! named {
    (
        $(#[$meta:meta])* $vis:vis enum $type:ident { $($variants:tt)+ }
        $(#[$all_meta:meta])* $all_vis:vis const ALL;
        $($text:tt)+
    ) => {
        named! { $(#[$meta])* $vis enum $type { $($variants)+ } $($text)+ }
        named! { @all $type { $($variants)+ } $(#[$all_meta])* $all_vis }
    };
    (
        $(#[$meta:meta])* $vis:vis enum $type:ident {
            $($(#[$about:meta])* $variant:ident = $name:literal,)+
        }
        $(#[$text_meta:meta])* $text_vis:vis const fn $text:ident;
    ) => {
        $(#[$meta])* $vis enum $type { $($(#[$about])* $variant,)+ }

        impl $type {
            $(#[$text_meta])*
            #[must_use]
            $text_vis const fn $text(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
    (
        @all $type:ident { $($(#[$about:meta])* $variant:ident = $name:literal,)+ }
        $(#[$meta:meta])* $vis:vis
    ) => {
        impl $type {
            $(#[$meta])*
            $vis const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];
        }
    };
}
pub(crate) use named;
