"""How the panel looks: big, calm, one thing at a time; colour only where something happens."""

from textual.theme import Theme

THEME = Theme(
    name="patency",
    primary="#7fc8d8",
    secondary="#5b8fa0",
    accent="#7fc8d8",
    foreground="#e8eef1",
    background="#0f1a21",
    surface="#16252e",
    panel="#1d303b",
    success="#3fa66b",
    warning="#e0a030",
    error="#d9534f",
    dark=True,
)

CSS = """
Screen { background: $background; }

#head { height: 3; padding: 1 3 0 3; background: $panel; }
#head.active { background: $warning; color: #14100a; }
#who { width: 1fr; text-style: bold; }
#link { width: auto; }

#body { height: 1fr; padding: 1 3; align: center middle; }
.page { width: 100%; max-width: 104; height: auto; }

#calm { align: center middle; text-align: center; height: auto; }
#calm .big { text-style: bold; width: 100%; text-align: center; margin-bottom: 1; }
#calm Static { width: 100%; text-align: center; }
#last { color: $foreground 70%; margin-top: 1; }
#policy { color: $foreground 70%; margin-top: 1; }
#site-policy { margin-top: 1; }

#card { border: round $primary; padding: 1 3; background: $surface; height: auto; }
#card.ask { border: heavy $primary; }
#card.active { border: heavy $warning; }
#card.glass { border: heavy $error; }
#card.glass #title { color: $error; }
#title { text-style: bold; width: 100%; }
#advice { width: 100%; margin-bottom: 1; }
#advice.strong { color: $warning; text-style: bold; }
.fact { height: auto; }
.fact .label { width: 12; color: $foreground 70%; }
.fact .value { width: 1fr; }
#columns { height: auto; }
#facts { width: 1fr; height: auto; max-height: 12; }
#aside { width: 30; height: auto; margin-left: 3; }
#aside Static { width: 100%; }
#code-label, #left-label { color: $foreground 70%; }
#code {
    height: 3; padding: 1 2; margin-bottom: 1; text-style: bold; text-align: center;
    background: $background; color: $primary;
}
#left { text-style: bold; }
#ticket { width: 100%; margin-top: 1; }
#notice { color: $foreground 70%; width: 100%; margin: 1 0; }
#act { height: 3; }
#pin { width: 20; margin-right: 1; border: round $primary; }
#act Button { margin-right: 1; min-width: 16; }

#message { height: auto; min-height: 1; width: 100%; text-align: center; padding: 0 3; }
#message.bad { color: $error; text-style: bold; }

#bar { height: 3; padding: 0 3; background: $surface; }
#bar Button { margin-right: 1; min-width: 14; }
#bar .gap { width: 1fr; }
#stop { min-width: 18; }
#contacts { height: 2; padding: 0 3; background: $surface; color: $foreground 70%; }
#contacts Static { width: 1fr; padding: 0 1 0 0; }

.small #head { height: 1; padding: 0 2; }
.small #body { padding: 0; }
.small #card { padding: 0 2; }
.small #advice, .small #notice, .small #code { margin: 0; }
.small #facts { max-height: 10; scrollbar-size-vertical: 1; }
.small #act, .small #bar { height: 1; }
.small #pin { border: none; width: 12; }
.small #act Button { min-width: 12; }
.small #ticket { margin: 0; }
.small #bar, .small #message { padding: 0 2; }
.small #contacts { padding: 0 1; }

#network { margin-top: 1; }
Network { align: center middle; background: $background 70%; }
#network-dialog {
    width: 96%; max-width: 110; height: 90%; border: heavy $primary; background: $surface;
    padding: 0 2;
}
#network-dialog .field { height: 1; }
#network-dialog .label { width: 18; color: $foreground 70%; }
#network-dialog Input { width: 1fr; }
#network-act { height: 1; margin-top: 1; }
#network-act Button { margin-right: 2; min-width: 16; }
#network-message { height: auto; width: 100%; margin: 1 0; }
#network-message.bad { color: $error; text-style: bold; }
#network-found { height: 1fr; scrollbar-size-vertical: 1; }
#found { width: 100%; height: auto; }

Confirm { align: center middle; background: $background 70%; }
#dialog {
    width: 72; height: auto; border: heavy $primary; background: $surface; padding: 1 3;
}
#dialog Static { width: 100%; margin-bottom: 1; }
#dialog #question { text-style: bold; }
#dialog Horizontal { height: 3; }
#dialog Button { margin-right: 2; min-width: 18; }
#dialog Input { margin-bottom: 1; }
"""
