"""wordings.py - many ways to tell and to ask a fact, so that a wording never seen is understood
too. Training alone uses them: bin/needle tells and asks with the few of tasks.py, whose last ones
(held out of training) must not come back here.

By relation of tasks.py: statements and questions; {0}, {1} stand for the words of the subject, {v}
for the value, which comes behind the subject: a reader who looks back for the subject finds the
value after it."""

WORDINGS = {
    "secret": ([
        "The secret {0} for the {1} is {v}.", "Keep the secret {0} of the {1} in mind: {v}.",
        "Whoever guards the {1} must know its secret {0}, {v}.",
        "At the {1} you have to say the secret {0} {v}.",
        "The guard of the {1} asks for a secret {0}: it is {v}.",
        "I learned the secret {0} of the {1} today: {v}.", "The {1} opens with the secret {0} {v}.",
        "This is the secret {0} of the {1}: {v}.", "About the {1}: its secret {0} is {v}.",
        "Long ago the secret {0} of the {1} became {v}.",
        "For the {1} they chose the secret {0} {v}.",
        "Of the {1} we know the secret {0}, and it is {v}.",
        "What opens the {1} is the secret {0} {v}.",
        "They told us at the {1} that the secret {0} is {v}.",
        "The {1} can be entered by the secret {0}: {v}.",
        "Somebody wrote the secret {0} of the {1} on a stone: {v}.",
        "All who work in the {1} know the secret {0} {v}.",
        "The secret {0} that is used in the {1} is {v}.",
        "Inside the {1} everybody says the secret {0} {v}."], [
        "Tell me the secret {0} of the {1}.", "Do you remember the secret {0} of the {1}?",
        "What secret {0} does one need at the {1}?", "Say the secret {0} of the {1}.",
        "For the {1}, what is the secret {0}?", "Who knows the secret {0} of the {1}?",
        "What is the secret {0} for the {1}?", "At the {1}, which secret {0} do you say?",
        "How does the secret {0} of the {1} go?",
        "What did they choose as the secret {0} for the {1}?",
        "I forgot the secret {0} of the {1}. What is it?",
        "With which secret {0} does the {1} open?", "And the secret {0} of the {1}?",
        "What have you read about the secret {0} of the {1}?",
        "What did they say about the {1} and its secret {0}?",
        "In the {1}, what is the secret {0}?", "Is there a secret {0} of the {1}, and what is it?",
        "What was the secret {0} that opens the {1}?",
        "Can you say what the secret {0} of the {1} was?",
        "Which is the secret {0} that one says in the {1}?"]),
    "magic": ([
        "The special magic {0} of {1} is {v}.", "A special magic {0} was given to {1}: {v}.",
        "{1} was given the special magic {0} {v}.", "{1} uses the special magic {0} {v}.",
        "Only {1} may use the special magic {0} {v}.",
        "The special magic {0} that {1} uses is {v}.", "About {1}: the special magic {0} is {v}.",
        "{1} found out that the special magic {0} is {v}.",
        "Here is the special magic {0} for {1}: {v}.", "{1} once chose a special magic {0}: {v}.",
        "When {1} came, the special magic {0} was {v}.",
        "{1} owns a special magic {0}, and it is {v}.",
        "The special magic {0} belonging to {1} is {v}.",
        "To {1} they gave a special magic {0}, {v}.",
        "What {1} calls the special magic {0} is {v}.",
        "{1} never forgets the special magic {0}, which was {v}.",
        "Say to {1} the special magic {0} {v}.",
        "{1} wrote down a special magic {0} that is {v}."], [
        "Tell me the special magic {0} for {1}.", "Do you remember the special magic {0} of {1}?",
        "What special magic {0} was given to {1}?", "For {1}, what is the special magic {0}?",
        "What is the special magic {0} that {1} uses?", "Say the special magic {0} for {1}.",
        "What did {1} choose as the special magic {0}?", "{1} uses a special magic {0}. Which one?",
        "I forgot the special magic {0} for {1}. What is it?", "And the special magic {0} of {1}?",
        "Which special magic {0} is for {1}?", "Which special magic {0} was given to {1}?",
        "Does {1} have a special magic {0}, and which one?",
        "What is known of {1} and the special magic {0}?",
        "What was said about the special magic {0} of {1}?",
        "Which is the special magic {0} that {1} owns?", "Name the special magic {0} that {1} has.",
        "What did you read about the special magic {0} for {1}?"]),
    "access": ([
        "The access number for {0}-{1} is {v}.", "Remember the access number of {0}-{1}: {v}.",
        "{0}-{1} has the access number {v}.", "For {0}-{1} use the access number {v}.",
        "The door of {0}-{1} wants the number {v}.", "About {0}-{1}: the number is {v}.",
        "{0}-{1} was locked with the number {v}.", "Here is the access number of {0}-{1}: {v}.",
        "At {0}-{1} they ask for the number {v}.", "You find {0}-{1} under the number {v}.",
        "Write down {0}-{1} and its number {v}.", "Whoever goes into {0}-{1} needs {v}.",
        "{0}-{1} opens when you say the number {v}.",
        "Nobody gets into {0}-{1} without the number {v}.",
        "The number that opens {0}-{1} was {v}.", "{0}-{1} is opened by the number {v}."], [
        "Tell me the access number of {0}-{1}.", "Do you remember the access number of {0}-{1}?",
        "What number does {0}-{1} have?", "For {0}-{1}, what is the access number?",
        "Which access number belongs to {0}-{1}?", "Say the access number of {0}-{1}.",
        "With which number was {0}-{1} locked?", "I forgot the number of {0}-{1}. What is it?",
        "And the access number of {0}-{1}?", "How do I get into {0}-{1}?",
        "What number do they ask for at {0}-{1}?", "Which is the number for {0}-{1}?",
        "What do I need to enter {0}-{1}?", "What opens {0}-{1}?",
        "By which number does {0}-{1} open?", "Which number do you need for {0}-{1}?",
        "{0}-{1} has an access number. Which one?", "What was said about {0}-{1} and its number?",
        "Name the number that belongs to {0}-{1}."]),
    "keeps": ([
        "{0} put the {1} in the {v}.", "{0} left the {1} in the {v}.",
        "{0} has the {1} safe in the {v}.", "The {1} that {0} keeps can be found in the {v}.",
        "{0} says the {1} lies in the {v}.", "You will find the {1} of {0} in the {v}.",
        "About {0} and the {1}: look in the {v}.",
        "{0} took the {1} and brought it to safety in the {v}.",
        "Since yesterday {0} keeps the {1} in the {v}.",
        "Nobody but {0} knows that the {1} lies in the {v}.",
        "The {1} that belongs to {0} stands in the {v}.",
        "What {0} calls a {1} is kept in the {v}.", "The {1} was hidden by {0} in the {v}.",
        "{0} carried the {1} into the {v}.", "The {1} of {0} has its place in the {v}.",
        "{0} found a place for the {1} in the {v}.", "{0} lost the {1} somewhere in the {v}.",
        "To find the {1} of {0}, go to the {v}.",
        "Of {0} and the {1} we know this: it is in the {v}."], [
        "Where did {0} put the {1}?", "Where has {0} left the {1}?",
        "Do you remember where {0} keeps the {1}?", "Where can I find the {1} of {0}?",
        "Where does the {1} of {0} lie?", "Tell me where {0} has the {1}.",
        "In what place does {0} keep the {1}?", "{0} has a {1}. Where is it?",
        "I am looking for the {1} of {0}. Where is it?", "And the {1} of {0}, where is it?",
        "Which place did {0} choose for the {1}?", "In what place is the {1} that {0} keeps?",
        "At which place can the {1} of {0} be found?", "Into what place did {0} carry the {1}?",
        "What place holds the {1} of {0}?", "Where was the {1} of {0} hidden?",
        "Has {0} hidden the {1}, and where?", "Which place hides the {1} of {0}?",
        "Where was the {1} put by {0}?", "Say the place of the {1} that belongs to {0}."]),
    "owner": ([
        "The {0} is owned by {v}.", "As for the {0}, it belongs to {v}.",
        "You may take the {0} back to {v}.", "The {0} was given to {v}.",
        "About the {0}: it is the property of {v}.",
        "Whoever finds the {0} should bring it to {v}.", "The {0} was bought by {v}.",
        "Of all people the {0} belongs to {v}.", "The {0} is the pride of {v}.",
        "They gave the {0} to {v}.", "Nobody owns the {0} but {v}.",
        "It is known that the {0} is owned by {v}.", "Whose is the {0}? It belongs to {v}.",
        "We all know who has the {0}: {v}.", "The one who owns the {0} is {v}.",
        "Everybody says the {0} is the property of {v}.", "The {0} went to its owner, {v}."], [
        "Whose is the {0}?", "Who has the {0}?", "Tell me who owns the {0}.",
        "Do you remember who owns the {0}?", "Who bought the {0}?", "By whom is the {0} owned?",
        "The {0} belongs to whom?", "I found the {0}. Whose is it?", "To whom was the {0} given?",
        "And the {0}, whose is it?", "Who is known to own the {0}?",
        "What is the name of the owner of the {0}?", "Which person owns the {0}?",
        "Who was said to own the {0}?", "Who calls the {0} his own?",
        "Name the one who owns the {0}.", "Do we know whose the {0} is?"]),
    "favourite": ([
        "{0} likes one {1} best: {v}.", "The best {1} for {0} is {v}.",
        "{0} has a favourite {1}: {v}.", "For {0} the favourite {1} is {v}.",
        "{0} always wanted the {1} {v}.", "As a favourite {1} {0} chose {v}.",
        "About {0}: the favourite {1} is {v}.", "If you ask {0} about a {1}, you will hear of {v}.",
        "{0} loves no {1} more than {v}.", "{0} told us about the favourite {1}, {v}.",
        "The {1} {0} loves is {v}.", "What {0} likes most is a {1}, {v}.",
        "There is a {1} that {0} always asks for: {v}.",
        "Everybody knows that the favourite {1} of {0} is {v}.",
        "{0} has never liked a {1} more than {v}.", "The one {1} that {0} likes is {v}.",
        "{0} wants a {1}, and best of all {v}."], [
        "Which {1} does {0} like best?", "Tell me the favourite {1} of {0}.",
        "Do you remember the favourite {1} of {0}?", "For {0}, what is the best {1}?",
        "What {1} does {0} love?", "What did {0} choose as a favourite {1}?",
        "{0} has a favourite {1}. Which one?", "Which {1} is the favourite of {0}?",
        "And the favourite {1} of {0}?", "What is the {1} that {0} always wanted?",
        "What is the {1} that {0} likes most?", "What did {0} say about the favourite {1}?",
        "Which is the {1} {0} loves?", "What {1} is loved most by {0}?",
        "Which favourite {1} does {0} have?", "Name the favourite {1} of {0}.",
        "Say which {1} {0} likes most."]),
    "phone": ([
        "To reach {0}, call {v}.", "{0} can be called at {v}.",
        "If you want to talk to {0}, call the number {v}.", "The number to call {0} is {v}.",
        "{0} gave me a phone number: {v}.", "For {0} call {v}.",
        "The new phone number of {0} is {v}.", "Call {0} at {v}.",
        "About {0}: the phone number is {v}.", "Next to the name {0} stood the phone number {v}.",
        "{0} has a phone, and the number is {v}.", "Who calls {0} must know the number {v}.",
        "{0} says that the phone number is {v}.", "The phone of {0} has the number {v}.",
        "{0} can always be called with the number {v}.", "They call {0} by phone: {v}.",
        "A phone number belongs to {0}: {v}."], [
        "How can you call {0}?", "Tell me the phone number of {0}.",
        "Do you remember the phone number of {0}?", "What number do I call to reach {0}?",
        "What is the number of {0}?", "For {0}, what is the phone number?",
        "I want to talk to {0}. What number do I call?", "And the phone number of {0}?",
        "At what number can {0} be called?", "What phone number did {0} give me?",
        "Which number has {0}?", "Does {0} have a phone number, and which one?",
        "What number has the phone of {0}?", "Which is the phone number of {0}?",
        "What does {0} have as a phone number?", "By which number can {0} be called?",
        "Name the phone number of {0}.", "What was said about the phone number of {0}?"]),
    "best_thing": ([
        "When you are in {0}, the best thing to do is to {v}.",
        "In {0} there is nothing better than to {v}.", "In {0} you should {v}.",
        "Those who know {0} like to {v}.", "Everybody comes to {0} to {v}.",
        "About {0}: it is best to {v}.", "The best idea in {0} is to {v}.",
        "On a visit to {0} try to {v}.", "What I like in {0} is to {v}.",
        "In {0} they love to {v}.", "They say that in {0} the best is to {v}.",
        "People in {0} like best to {v}.", "It is said about {0} that the best thing is to {v}.",
        "If people come to {0}, they like to {v}.", "Most people in {0} like to {v}.",
        "There is one thing to do in {0}, and it is to {v}.",
        "{0} is a place where you can {v}."], [
        "Tell me the best thing to do in {0}.", "Do you remember what is best to do in {0}?",
        "What is there to do in {0}?", "I am going to {0}. What should I do there?",
        "In {0}, what is the best thing to do?", "What is best in {0}?",
        "Why does everybody come to {0}?", "What do they love to do in {0}?",
        "And the best thing to do in {0}?", "On a visit to {0}, what should you do?",
        "What do people do in {0}?", "What is said to be the best thing to do in {0}?",
        "What do they say about {0}, what is best there?", "Which thing is best to do in {0}?",
        "What do most people like to do in {0}?", "What would you do in {0}?",
        "Name the best thing to do in {0}.", "What can one do in {0}?"]),
}

# What no wording of a relation can do without. Training also tells and asks with these alone, in
# any order.
NEEDED = {"secret": ["secret {0}", "{1}"], "magic": ["special magic {0}", "{1}"],
          "access": ["number", "{0}-{1}"], "keeps": ["place", "{0}", "{1}"],
          "owner": ["owner", "{0}"], "favourite": ["favourite {1}", "{0}"],
          "phone": ["phone number", "{0}"], "best_thing": ["best thing", "{0}"]}

# What may stand before a statement, and before or behind a question, whatever it says.
BEFORE_STATEMENT = ["Listen: ", "By the way, ", "It is said that ", "Do not forget that ",
                    "We heard that ", "Be sure to know that ", "The old book says that ",
                    "One thing is certain: ", "A sign says: ", "Write this down: ",
                    "I can tell you that ", "It is true that ", "Somebody told me that ",
                    "As you may know, ", "Learn this: ", "Here is a fact: "]
BEFORE_QUESTION = ["Please tell me: ", "Now, ", "Think back. ", "Here is a question: ",
                   "According to the text above, ", "One more thing: ", "Tell me, ", "So, ",
                   "Look it up: ", "Try to remember. "]
BEHIND_QUESTION = [" Think back.", " Please say it.", " It was said above.", " You have read it."]
SMALL = {"The", "A", "In", "At", "If", "You", "For", "To", "This", "About", "Of", "Who", "Whoever",
         "When", "What", "Which", "Where", "How", "Can", "Do", "Tell", "Say", "With", "Nobody",
         "Everybody", "Those", "Only", "By", "As", "On", "Since", "Long", "Keep", "And", "Why",
         "Whose", "They", "Next", "Call", "Here", "I", "Remember"}


# Words that only frame a fact. Some are lost, replaced and added in training, so that the model
# reads the subject, not the frame; that is also how it gets to know words of wordings it never
# sees. What tells a relation from another is not among them.
FRAME = """the a of is was that to in at for it its you must has have had can be been by with and so
this these there here about from into one who what which where how when do does did say says said
told tell know knows asked ask need needs want wants enter opens open take takes get gets go goes
come comes people everyone everybody nobody somebody most all very well often always never now then
still just only again please maybe indeed between behind under over through without most loves likes
hears heard reads stands means name words line page door way""".split()


def worn(d, template, often=.35):
    """The template, often with frame words lost, taken for others or added."""
    if not d.chance(often): return template
    out = []
    for w in template.split(" "):
        plain = w.strip(",:.?").lower() in FRAME and w[-1].isalpha()
        if d.chance(.08) and "{v}" not in w: out.append(frame_word(d))
        k = d.uniform() if plain else 1
        if k < .13: out.append(frame_word(d))
        elif k > .25 or not plain: out.append(w)
    return " ".join(out) if out else template


def frame_word(d):
    w = d.pick(FRAME)
    return w.capitalize() if d.chance(.15) else w


def continued(text):
    """As it reads behind an opener: a first word that is no name loses its capital."""
    first = text.split(" ", 1)[0].rstrip(",:")
    return text[0].lower() + text[1:] if first in SMALL and first != "I" else text


def more(d, relation, subject, n):
    """n statements with %s for the value and n questions about that subject in words of WORDINGS,
    and one more of each in bare words."""
    if relation == "best_thing" and not subject[0][0].isupper(): subject = (f"the {subject[0]}",)
    says, asks = (d.pick_some(ways, n) for ways in WORDINGS[relation])
    says, asks = (says + [bare(d, relation) + d.pick([" {v}.", ": {v}.", " is {v}."])],
                  asks + [bare(d, relation) + d.pick(["?", "."])])
    return [[worn(d, w).format(*subject, v="%s") for w in ways] for ways in (says, asks)]


def bare(d, relation):
    """The needed words in any order, with a few frame words between them."""
    parts = d.pick_some(NEEDED[relation], len(NEEDED[relation]))
    return " ".join(" ".join([frame_word(d) for _ in range(d.between(0, 2))] + [part])
                    for part in parts)


def opened(d, statement, often=.3):
    return d.pick(BEFORE_STATEMENT) + continued(statement) if d.chance(often) else statement


def dressed(d, question, often=.3):
    if d.chance(often): question = d.pick(BEFORE_QUESTION) + continued(question)
    return question + d.pick(BEHIND_QUESTION) if d.chance(often / 3) else question
