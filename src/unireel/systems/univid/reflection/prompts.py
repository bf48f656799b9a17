"""What the roles are told: the instructions of UniVid's appendix A.5 in our own words.

Braces are filled by :meth:`str.format`. Replies that a program reads are one line of JSON.
"""

ROUTE = """\
Decide how a question about a video has to be looked into.

"static": a few frames in any order are enough, because it asks what something is, looks like, where it is, or what \
is happening at one moment.
"dynamic": frames have to be compared over time, because it asks how often, in which order, before or after what, \
first or last, or how something changes.

Question: {question}

Reply with one line of JSON and nothing else: {{"qtype": "static" or "dynamic", "rationale": "a few words why"}}"""

DESCRIBE = """\
This is one frame of a video. In two to four short sentences say what it shows.
Name each person, animal or moving thing with what tells it apart (colour, clothing, kind) and what it is doing; \
then the objects that matter with their state (open or closed, on or off, whole or broken), and where this is.
Say only what can be seen."""

SUMMARISE = """\
These notes describe frames of one video, from the earliest to the latest:

{notes}

Write two to four plain sentences about the whole video: who or what moves, how it looks and what it does over time; \
which things stay and in what state; what comes after what, only where the notes show it. No lists, no frame-by-frame \
account, nothing that is not in the notes."""

ACT = """\
The pictures are {count} frames of a video of {duration}, in order. They were taken at {times}.
What the whole video is about: {caption}

Answer the question from the frames, in as few words as it allows.
Question: {question}"""

ACT_WITHOUT_CAPTION = """\
The pictures are {count} frames of a video of {duration}, in order. They were taken at {times}.

Answer the question from the frames, in as few words as it allows.
Question: {question}"""

EVALUATE = """\
Judge how likely an answer to a question about a video is right.

You know the question, a summary of the whole video, and the answer, which was given by a model that saw {count} \
frames. A good answer fits the question's kind (a number for "how many", a colour for "what colour"), commits itself, \
and does not contradict the summary. The summary may leave details out; that alone is no reason to reject.

Example
Question: what does the woman pick up after she closes the drawer?
Summary: A woman in a green coat walks through a kitchen. She closes a drawer and takes a knife.
Answer: She closes the drawer.
Reply: {{"score": 0.2, "verdict": "reject", "brief_reason": "says what she does before, not after"}}

Now this one
Question: {question}
Summary: {caption}
Answer: {answer}

Reply with one line of JSON and nothing else: {{"score": from 0 to 1, "verdict": "accept" if the score is at least \
{threshold}, else "reject", "brief_reason": "a few words"}}"""

REFLECT = """\
A question about a video was answered from a few of its frames, and the answer was rejected. Find out what was \
probably missing (an object that was not in the frames, the wrong moment, two things mixed up, something hidden) and \
write a search text that will find better frames.

Question: {question}
Summary of the whole video: {caption}
Rejected answer: {answer}
Why: {reason}
Search texts so far: {queries}

The search text is one statement of at most 25 words that describes what the frame we need looks like: things, \
colours, clothing, action and its phase, left or right, first or last. It is no question, it differs from the search \
texts so far, and it names nothing that neither the question nor the summary mentions.

Reply with one line of JSON and nothing else: {{"refined_query": "the search text"}}"""

NOT_ENOUGH = "Not enough evidence"

ANSWER_FROM_CAPTION = (
    """\
Answer the question from the summary of the video alone, in one or two short sentences.

Question: {question}
Summary (details may be missing): {caption}

If the summary does not tell, reply with exactly: """
    + NOT_ENOUGH
)
