import torch

from dacesr.nets.modulation import WHOLE, ReleaseModulation


def test_token_0_is_stretched_over_the_pixels_of_each_image():
    condition = torch.randn(2, 5, 512)
    affines = ReleaseModulation(groups=3)(condition, 30, 40, WHOLE)
    assert len(affines) == 3
    expected = torch.nn.functional.interpolate(condition[:, :1], size=1200, mode="linear").mT
    torch.testing.assert_close(affines[0].beta, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(affines[0].alpha, 1 + expected, rtol=1e-4, atol=1e-4)


def test_pictures_smaller_than_the_condition_sample_it():
    condition = torch.randn(1, 1, 512)
    expected = torch.nn.functional.interpolate(condition, size=6, mode="linear").mT
    torch.testing.assert_close(ReleaseModulation(groups=1)(condition, 2, 3, WHOLE)[0].beta, expected)


def test_a_window_gets_its_part_of_the_whole():
    condition, modulation = torch.randn(1, 2, 512), ReleaseModulation(groups=1)
    whole = modulation(condition, 40, 60, WHOLE)[0].beta.view(40, 60)
    window = (10 / 40, 12 / 60, 31 / 40, 50 / 60)
    part = modulation(condition, 21, 38, window)[0].beta.view(21, 38)
    torch.testing.assert_close(part, whole[10:31, 12:50])
