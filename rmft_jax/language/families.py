"""What a problem can be about: families of stories, the names of their arms, and the units of their rewards."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """How a reward is written.

    Attributes:
      one: word after exactly 1.
      many: word after every other number.
      paid: what a story says that one gets.
      top: what the highest reward is written as, where the lowest is 0; None writes rewards as they are.
      decimals: digits after the point.
      mean_decimals: the same for averages.
      padded: whether zeros at the end are kept, as in 3.50.
    """

    one: str
    many: str
    paid: str
    top: float | None
    decimals: int
    mean_decimals: int
    padded: bool = False

    def scaled(self, value: float, low: float, high: float) -> float:
        """A reward from the range `low` to `high` as a number of this unit."""
        return value if self.top is None else self.top * (value - low) / (high - low)

    def more_decimals(self, low: float, high: float) -> int:
        """Digits that rewards of a small range need beyond `decimals`, so that they do not all look alike."""
        return max(0, math.ceil(-math.log10(high - low))) if self.top is None else 0


@dataclass(frozen=True)
class Family:
    """A kind of story.

    Attributes:
      noun: what one arm is.
      nouns: what several arms are.
      verb: what one does with an arm.
      openers: first sentences of the story, with `{paid}` for what one gets.
      names: names of arms. They differ in their first words.
      units: keys of the units that fit.
      labelled: whether the noun follows the name where the arm is spoken of.
    """

    noun: str
    nouns: str
    verb: str
    openers: tuple[str, ...]
    names: tuple[str, ...]
    units: tuple[str, ...]
    labelled: bool = True


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


TRAINED_UNITS: Mapping[str, Unit] = {
    "points": Unit("point", "points", "points", None, 1, 2),
    "exact points": Unit("point", "points", "points", None, 2, 2, padded=True),
    "percent": Unit("percent", "percent", "a score in percent", 100.0, 0, 0),
    "dollars": Unit("dollar", "dollars", "dollars", 5.0, 2, 2, padded=True),
    "tickets": Unit("ticket", "tickets", "tickets", 20.0, 0, 1),
}

HELD_OUT_UNITS: Mapping[str, Unit] = {
    "stars": Unit("star", "stars", "stars", 5.0, 1, 2),
    "euros": Unit("euro", "euros", "euros", 8.0, 2, 2, padded=True),
    "credits": Unit("credit", "credits", "credits", None, 2, 2),
    "cents": Unit("cent", "cents", "cents", 100.0, 0, 0),
}

TRAINED: Mapping[str, Family] = {
    "buttons": Family(
        noun="button",
        nouns="buttons",
        verb="press",
        openers=(
            "You see a row of buttons. Every press of one brings {paid}.",
            "A machine has a few buttons. When you press one, it gives you {paid}.",
            "On the wall there are buttons, and behind each of them wait {paid}.",
        ),
        names=_names(
            "red, blue, green, yellow, black, white, orange, purple, pink, brown, grey, gold, silver, violet, olive, "
            "cream, ruby, coral, amber, dark cyan, pale lime"
        ),
        units=("points", "exact points", "tickets"),
    ),
    "clothes": Family(
        noun="piece",
        nouns="clothes",
        verb="show",
        openers=(
            "In a shop for clothes, you show one piece to each guest and earn {paid}.",
            "Your web page sells clothes. Each visitor is shown one piece and brings {paid}.",
            "People ask you what to wear. For each piece they thank you with {paid}.",
        ),
        names=_names(
            "jeans, shirt, coat, dress, skirt, jacket, hat, scarf, belt, boots, shoes, socks, gloves, sweater, suit, "
            "tie, vest, shorts, cap, sandals, rain cape"
        ),
        units=("dollars", "points", "percent"),
        labelled=False,
    ),
    "adverts": Family(
        noun="picture",
        nouns="pictures",
        verb="print",
        openers=(
            "You print one picture for an advert each day. The readers answer with {paid}.",
            "An advert needs a picture. Try some, as the clicks of people bring {paid}.",
            "You run adverts for a small shop. The picture that you print earns {paid}.",
        ),
        names=_names(
            "kitten, beach, mountain, car, city, flower, child, robot, sunset, forest, horse, ship, train, puppy, "
            "castle, balloon, guitar, dancer, moon, hot tea"
        ),
        units=("percent", "dollars", "exact points"),
    ),
    "medicine": Family(
        noun="dose",
        nouns="doses",
        verb="give",
        openers=(
            "You are a doctor. Each patient gets one dose and answers with {paid}.",
            "A medicine is tested. Every patient takes one dose, and its effect is told as {paid}.",
            "Patients with the same illness come. The effect of a dose counts {paid}.",
        ),
        names=_names(
            "tiny, small, low, light, weak, half, single, normal, full, double, triple, strong, high, heavy, large, "
            "huge, early, late, slow, very fast"
        ),
        units=("percent", "points", "exact points"),
    ),
    "tips": Family(
        noun="table",
        nouns="tables",
        verb="serve",
        openers=(
            "As a waiter you serve one table each evening, and its guests leave {paid}.",
            "In a restaurant you can serve only one table at a time. Its tip is {paid}.",
            "Guests of a restaurant give tips. You choose the table to serve and keep {paid}.",
        ),
        names=_names(
            "window, door, garden, corner, bar, stairs, wall, terrace, hall, middle, left, right, front, back, round, "
            "long, quiet, upper, lower, old oak, square"
        ),
        units=("dollars", "points", "tickets"),
    ),
    "allocation": Family(
        noun="project",
        nouns="projects",
        verb="fund",
        openers=(
            "The mayor of a city can fund one project each year. It brings {paid}.",
            "There is money for one project at a time. What you fund returns {paid}.",
            "A bank lets you fund one project each month. Its use is counted as {paid}.",
        ),
        names=_names(
            "school, bridge, hospital, library, road, park, farm, museum, harbour, factory, theatre, market, airport, "
            "stadium, tunnel, mill, dam, mine, zoo, swimming pool"
        ),
        units=("percent", "dollars", "exact points"),
    ),
    "meals": Family(
        noun="meal",
        nouns="meals",
        verb="cook",
        openers=(
            "You cook one meal a day for a school. The children give you {paid}.",
            "Friends visit you for dinner each week and thank you with {paid}.",
            "You sell warm food in the street. Every meal that you cook brings {paid}.",
        ),
        names=_names(
            "bread, soup, rice, pasta, salad, cheese, apple, banana, fish, beans, pizza, cake, eggs, honey, potato, "
            "tomato, noodles, pie, curry, sweet corn"
        ),
        units=("points", "dollars", "tickets"),
        labelled=False,
    ),
    "music": Family(
        noun="music",
        nouns="kinds of music",
        verb="play",
        openers=(
            "You choose the music of a radio station, and each hour listeners send {paid}.",
            "At a party you play music. Each song of a kind earns {paid} from the people.",
            "A robot learns about music. You play one kind and it answers with {paid}.",
        ),
        names=_names(
            "jazz, rock, pop, folk, opera, blues, soul, metal, disco, choir, piano, drum, flute, violin, trumpet, "
            "organ, harp, swing, house, gospel, film"
        ),
        units=("tickets", "points", "percent"),
    ),
}

HELD_OUT: Mapping[str, Family] = {
    "machines": Family(
        noun="machine",
        nouns="machines",
        verb="try",
        openers=(
            "Each machine in a hall has an animal on it and returns {paid}.",
            "You visit a casino with a few machines. To play on one brings {paid}.",
            "An old game hall has machines, and every machine keeps {paid} for you.",
        ),
        names=_names(
            "lion, tiger, bear, wolf, fox, eagle, owl, rabbit, snake, whale, shark, camel, zebra, panda, otter, crow, "
            "frog, goat, mouse, swan"
        ),
        units=("stars", "credits", "cents"),
    ),
    "fishing": Family(
        noun="place",
        nouns="places",
        verb="visit",
        openers=(
            "You live from fishing. Each morning you visit one place, and your fish sell for {paid}.",
            "On a small ship you go fishing. Every place that you visit earns {paid}.",
            "A fishing game has many places. The fish of the place that you choose count {paid}.",
        ),
        names=_names(
            "lake, river, creek, bay, reef, pond, delta, canal, coast, island, swamp, cliff, shore, lagoon, marsh, "
            "strait, gulf, fjord, rapids, estuary"
        ),
        units=("euros", "credits", "stars"),
    ),
    "crops": Family(
        noun="seed",
        nouns="seeds",
        verb="plant",
        openers=(
            "On your farm you plant one seed each year. The market gives {paid}.",
            "In a garden you plant one seed each morning and get {paid} for it.",
            "Farmers ask you for one seed to plant. They thank you with {paid} for each.",
        ),
        names=_names(
            "wheat, barley, oats, rye, clover, hemp, cotton, lentil, pea, carrot, onion, garlic, melon, pumpkin, "
            "lettuce, spinach, tulip, poppy, basil, mint"
        ),
        units=("euros", "cents", "stars"),
    ),
    "routes": Family(
        noun="way",
        nouns="ways",
        verb="take",
        openers=(
            "You go to work each morning. A fast way earns {paid}.",
            "A car must cross the city. The time that is left brings {paid}.",
            "Your robot carries food to people. The way that it must take returns {paid}.",
        ),
        names=_names(
            "school road, bridge street, hospital road, library street, park road, farm street, museum road, "
            "harbour street, factory road, theatre street, market road, airport street, stadium road, tunnel street, "
            "mill road, castle street, garden road, mountain street, forest road, beach street"
        ),
        units=("cents", "credits", "euros"),
        labelled=False,
    ),
    "teams": Family(
        noun="team",
        nouns="teams",
        verb="send",
        openers=(
            "The mayor has many teams. You send one to each game, which returns {paid}.",
            "Teams play for your school. The team that you send earns {paid}.",
            "Every week you choose a team for a game, which brings you {paid}.",
        ),
        names=_names(
            "red horse, blue moon, green ship, yellow car, black forest, white mountain, orange robot, purple castle, "
            "pink kitten, brown boots, grey city, gold train, silver guitar, violet flower, olive hat, cream cake, "
            "ruby shoes, coral beach, amber sunset, tiny puppy"
        ),
        units=("stars", "credits", "euros"),
        labelled=False,
    ),
}
