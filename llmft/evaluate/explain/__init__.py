"""Why a model decided as it did: which of the patient's words, and which calls of the training are like this one."""
