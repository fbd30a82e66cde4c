from coma_gen.api import MusicModel as MusicModel
from coma_gen.api import load_model as load_model
from coma_gen.core.errors import UserError as UserError
from coma_gen.evaluation.midi_score import Score as Score
from coma_gen.generated_piece import GeneratedPiece as GeneratedPiece
from coma_gen.midi.notes import Notes as Notes
from coma_gen.tokenizer.remi import Tokenizer as Tokenizer

__version__: str
