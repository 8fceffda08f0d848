"""The demo page: type or record, and hear what the flow makes of it.

One file a tab: `text_to_speech`, `copy_synthesis`, `comparison` and `latent_space`. Each has first
what the tab computes, as functions that know no page, and then `layout`, the tab itself. They share
`sound` (recordings, timing, likelihoods), `models` (the trained models, loaded when first used),
`pictures` and `widgets` (pieces of the page); `page` puts the tabs together and serves them.

gradio is an extra: `page` and `widgets` import it, and nothing imports those two before a page is
built. All this is part of the package so that an installed `vocoder demo` has it.
"""
