"""Stand-in for the published chat templates."""

import copy
import dataclasses
from typing import Any


@dataclasses.dataclass
class Conversation:
    name: str
    system_message: str
    roles: tuple[str, str] = ("<|im_start|>user\n", "<|im_start|>assistant\n")
    sep: str = "<|im_end|>"
    messages: list[Any] = dataclasses.field(default_factory=list)

    def append_message(self, role, message):
        self.messages.append([role, message])

    def get_prompt(self):
        said = [f"<|im_start|>system\n{self.system_message}{self.sep}"]
        said += [role + (message + self.sep if message else "") for role, message in self.messages]
        return "".join(said)


TEMPLATES = {"internlm2-chat": Conversation("internlm2-chat", "Be of use.")}


def get_conv_template(name):
    return copy.deepcopy(TEMPLATES[name])
