# Licensed under the Apache License, Version 2.0.
import os
from collections.abc import Mapping

from mmcv.transforms import BaseTransform

from mmdet_clim.registry import MODELS, TRANSFORMS

# mmdet's own of its BertModel.
MAX_TOKENS = 256


@TRANSFORMS.register_module()
class TokenizePrompts(BaseTransform):
    """Write and tokenise the prompts of ``GroundingObjective`` in a worker.

    What a mosaic tells a grounding detector follows from its texts alone:
    which captions or names are drawn, how they make prompts, and which tokens
    are whose. The training process then has nothing left to do but the
    upload. Without this transform the objective does the same itself, while
    the device waits.

    It stands after ``PackRegionTextInputs``.

    Required Keys:

    - data_samples (:obj:`DetDataSample`, a packed mosaic)

    Modified Keys:

    - data_samples: ``prompts``, per objective a list of ``ToldPrompt``

    Args:
        detector (str or type): A registered GLIP or Grounding DINO.
        language_model (dict): Its language model's config.
        objectives (dict[str, dict]): The model's configs of
            ``GroundingObjective``.

    Raises:
        ValueError: If the detector reads no texts.
    """

    def __init__(self, detector: str | type, language_model: Mapping,
                 objectives: Mapping[str, dict]) -> None:
        # Models import data sets; transformers is slow to import.
        from transformers import AutoTokenizer

        from mmdet_clim.models.families.text_conditioned import text_family
        from mmdet_clim.models.text_encoders import sentence_encoder

        # Of workers, which are forks of a process that had threads of it, the
        # library would warn.
        os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
        kind = MODELS.get(detector) if isinstance(detector, str) else detector
        family = None if kind is None else text_family(kind)
        if family is None:
            raise ValueError('detector: expected a GLIP or a Grounding DINO, '
                             f'got {detector!r}')
        self.family = family
        name = language_model.get('name')
        if 'package' in language_model:
            name = sentence_encoder.find_weights(language_model['package'])
        self.tokenizer = AutoTokenizer.from_pretrained(str(name))
        self.max_tokens = language_model.get('max_tokens', MAX_TOKENS)
        self.targets = [
            MODELS.build(cfg).targets for cfg in objectives.values()
        ]

    def transform(self, results: dict) -> dict:
        """Add the prompts to one sample."""
        sample = results['data_samples']
        sample.prompts = {
            targets.key(self.tokenizer, self.max_tokens):
            targets.prompts(sample, self.family, self.tokenizer,
                            self.max_tokens)
            for targets in self.targets
        }
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(max_tokens={self.max_tokens}, '
                f'objectives={len(self.targets)})')
