"""The demonstration page: type or record, and hear what the flow makes of it.

`tasks` does what the tabs do and knows no page, `models` keeps the trained models, `pictures`
draws, and `page`, the one module that imports gradio, lays the page out and serves it. All this is
part of the package because the command `vocoder demo` is installed with it.
"""
