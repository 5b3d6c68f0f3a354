"""The paper's own three models, which run Python code that lies in their folders (transformers 4.48).

Reading order: ``remote`` (opening such a folder, and copying what a trained model needs of it), ``front`` (a remote
model behind the interface that the backends use), ``base`` (what the three families share), then ``minicpm``
(MiniCPM-Llama3-V-2.5), ``phi3v`` (Phi-3.5-vision) and ``internvl`` (InternVL2) over ``tiles``.
"""
